"""`envoy:replicas=N`: servers of one application behind a real Envoy, as one endpoint of several hosts."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace

from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.target_spec import TargetSpec
from pytest_openenv_scale.core.text import LOG_LINES
from pytest_openenv_scale.targets.common.base import DescriptionPart, StartedTarget, with_log
from pytest_openenv_scale.targets.common.options import TargetContext
from pytest_openenv_scale.targets.common.readiness import NotReadyError, Watch, start_s, wait_until_ready
from pytest_openenv_scale.targets.local.serving import largest_backlog

from .config import Backend, EnvoySettings, ImageOptions, LocalReplicaOptions, UrlReplicaOptions, parse_envoy, render
from .endpoint import EnvoyEndpoint
from .pool import START_S as POOL_START_S
from .pool import LocalEnvoyPool
from .replicas import AttachedReplicas, ContainerReplicas, LocalReplicas, Replicas, replica_address, resolve_backend

_SESSION_S = 30.0
"""Seconds the first session through Envoy gets at least; every replica has answered one by then."""

_FREE_PORT_NOTE = "# Port 0 stands for a free one, chosen when it starts."
_KINDS = {LocalReplicaOptions: "local", ImageOptions: "docker", UrlReplicaOptions: "urls"}
"""What stands behind Envoy, in a label."""


class EnvoyTarget(StartedTarget):
    """Starts replicas, or attaches to those of `urls=`, and puts Envoy in front of them while the context lasts."""

    def __init__(self, spec: TargetSpec, context: TargetContext) -> None:
        self.options = parse_envoy(spec)
        super().__init__(spec, context, self.options)

    def describe(self) -> list[DescriptionPart]:
        """Return what would be started; see `StartedTarget`."""
        options = self.options
        backends = tuple(Backend(replica_address(number), 0) for number in range(options.replicas))
        if isinstance(options, UrlReplicaOptions):
            backends = tuple(map(resolve_backend, options.urls))
        config = render(replace(self.settings(), backends=backends)).rstrip()
        return [*self.replicas().describe(), DescriptionPart("Envoy's configuration", f"{_FREE_PORT_NOTE}\n{config}")]

    def start(self, stack: ExitStack) -> Endpoint:
        """Start everything and return once a session was answered through Envoy."""
        options = self.options
        # Before anything else is started in vain.
        pool = LocalEnvoyPool(
            self.settings(), self.context.largest_batch, threads=options.threads, nofile=options.nofile
        )
        began = time.monotonic()
        replicas = self.replicas()
        replicas.start(stack)
        late_notes = replicas.wait(self.context.headers)
        pool.start(stack, replicas.backends)
        pool.wait(start_s(options.start_timeout, self.context, POOL_START_S))
        envoy_endpoint = EnvoyEndpoint(replicas, pool, options.lb)
        stack.callback(envoy_endpoint.stop)
        limits = {"replicas": options.replicas, **options.declared, **replicas.limits}
        endpoint = self.endpoint(
            [pool.url],
            f"envoy-{_KINDS[type(options)]}",
            cores=replicas.cores,
            hosts=options.replicas,
            limits={**limits, "lb": options.lb, "envoys": pool.count},
            session_settings=replicas.session_settings,
            notes=(*replicas.notes, *late_notes),
            backlog=largest_backlog(),
            sampler=replicas.sample,
            log_reader=envoy_endpoint.log_tail,
            exit_reader=envoy_endpoint.exit_status,
            proxy_reader=envoy_endpoint.snapshot,
        )
        self._check_through_envoy(endpoint, envoy_endpoint)
        return replace(endpoint, startup_s=time.monotonic() - began)

    def replicas(self) -> Replicas:
        """Return what stands behind Envoy, before it is started."""
        options = self.options
        if isinstance(options, UrlReplicaOptions):
            return AttachedReplicas(options.urls, self.context)
        if isinstance(options, ImageOptions):
            return ContainerReplicas(options, self.context, target=self.spec)
        return LocalReplicas(options, self.context, count=options.replicas, target=self.spec)

    def settings(self) -> EnvoySettings:
        """Return what Envoy is configured with, but for the servers behind it."""
        options = self.options
        return EnvoySettings.for_batch(
            self.context.largest_batch, options.lb, port=options.port or 0, breaker=options.max_connections
        )

    def _check_through_envoy(self, endpoint: Endpoint, envoy_endpoint: EnvoyEndpoint) -> None:
        watch = Watch(show=self.context.show_status, prefix="envoy: waiting for a session through it")
        try:
            wait_until_ready(
                endpoint.urls,
                endpoint.headers,
                start_s(self.options.start_timeout, self.context, _SESSION_S),
                envoy_endpoint.exit_status,
                session=self.context.first_session,
                watch=watch,
            )
        except NotReadyError as error:
            why = error.exit or error
            message = f"target {self.spec}: every replica answers a session, but not through Envoy: {why}"
            raise TargetError(with_log(message, envoy_endpoint.log_tail(LOG_LINES), "the log")) from None
