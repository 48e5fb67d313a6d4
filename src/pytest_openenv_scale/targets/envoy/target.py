"""`envoy:replicas=N`: servers of one application behind a real Envoy, as one endpoint of several hosts."""

from __future__ import annotations

import resource
import time
from contextlib import ExitStack
from dataclasses import replace

from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.system import usable_cores
from pytest_openenv_scale.core.target_spec import TargetSpec
from pytest_openenv_scale.targets.common.base import DescriptionPart, StartedTarget, with_log
from pytest_openenv_scale.targets.common.options import TargetContext, given
from pytest_openenv_scale.targets.common.readiness import NotReadyError, wait_until_ready
from pytest_openenv_scale.targets.local.application import backlog_notes

from .config import (
    Backend,
    EnvoySettings,
    ImageOptions,
    LocalReplicaOptions,
    UrlReplicaOptions,
    backlog_for,
    breaker_for,
    envoys_needed,
    parse_envoy,
    render,
    threads_for,
)
from .endpoint import EnvoyEndpoint
from .pool import LocalEnvoyPool, find_envoy
from .replicas import AttachedReplicas, ContainerReplicas, LocalReplicas, Replicas, replica_address, resolve_backend

_SESSION_S = 30.0
"""Seconds the first session through Envoy gets; every replica has answered one by then."""

_FREE_PORT_NOTE = "# Port 0 stands for a free one, chosen when it starts."
_MAX_ENVOYS = 32
"""Each takes some 40 MB and a thread or more; a batch that needs more of them needs more descriptors instead."""


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
        config = render(self.settings(backends)).rstrip()
        return [*self.replicas().describe(), DescriptionPart("Envoy's configuration", f"{_FREE_PORT_NOTE}\n{config}")]

    def start(self, stack: ExitStack) -> Endpoint:
        """Start everything and return once a session was answered through Envoy."""
        options = self.options
        executable, count = find_envoy(), self._envoy_count()  # Before anything else is started in vain.
        began = time.monotonic()
        replicas = self.replicas()
        replicas.start(stack)
        late_notes = replicas.wait(self.context.headers)
        pool = self._make_pool(executable, count, replicas)
        pool.start(stack)
        pool.wait()
        envoy_endpoint = EnvoyEndpoint(replicas, pool, options.lb)
        stack.callback(envoy_endpoint.stop)
        declared = given(workers=options.workers, max_envs=options.max_envs)
        limits = {"replicas": options.replicas, **declared, **replicas.limits}
        endpoint = self.endpoint(
            [pool.url],
            f"envoy-{_KINDS[type(options)]}",
            cores=replicas.cores,
            hosts=options.replicas,
            limits={**limits, "lb": options.lb, "envoys": pool.count},
            notes=(*replicas.notes, *late_notes, *backlog_notes(self.context.largest_batch)),
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

    def _envoy_count(self) -> int:
        largest = self.context.largest_batch
        nofile = self.options.nofile or resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        count = envoys_needed(largest, nofile)
        if count > _MAX_ENVOYS:
            raise TargetError(
                f"target envoy: a batch of {largest} takes {count} Envoys of {nofile} open files each, and at most "
                f"{_MAX_ENVOYS} are started; write a larger nofile=, or raise ulimit -Hn"
            )
        return count

    def settings(self, backends: tuple[Backend, ...]) -> EnvoySettings:
        """Return what Envoy is configured with in front of these servers."""
        options, largest = self.options, self.context.largest_batch
        return EnvoySettings(
            port=options.port or 0,
            backends=backends,
            policy=options.lb,
            breaker=options.max_connections or breaker_for(largest),
            backlog=backlog_for(largest),
        )

    def _make_pool(self, executable: str, count: int, replicas: Replicas) -> LocalEnvoyPool:
        options, settings = self.options, self.settings(replicas.backends)
        threads = options.threads or threads_for(usable_cores(), count)
        return LocalEnvoyPool(executable, settings, count=count, threads=threads, nofile=options.nofile)

    def _check_through_envoy(self, endpoint: Endpoint, envoy_endpoint: EnvoyEndpoint) -> None:
        try:
            wait_until_ready(
                endpoint.urls, endpoint.headers, _SESSION_S, envoy_endpoint.exit_status, modes=self.context.modes
            )
        except NotReadyError as error:
            why = error.exit or error
            message = f"target {self.spec}: every replica answers a session, but not through Envoy: {why}"
            raise TargetError(with_log(message, envoy_endpoint.log_tail(20), "the log")) from None
