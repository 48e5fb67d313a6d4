"""`envoy:replicas=N`: servers of one application behind a real Envoy, as one endpoint of several hosts."""

from __future__ import annotations

import resource
import time
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType

from pytest_openenv_scale.core.endpoint import Endpoint, TargetError
from pytest_openenv_scale.core.grammar import TargetSpec, redact_target
from pytest_openenv_scale.server.settings import usable_cores

from .application import backlog_notes
from .context import TargetContext
from .envoy_config import Backend, EnvoySettings, backlog_for, breaker_for, envoys_needed, threads_for
from .envoy_containers import ContainerReplicas
from .envoy_fleet import EnvoyFleet, find_envoy
from .envoy_front import Front
from .envoy_replicas import GivenReplicas, LocalReplicas, Replicas
from .envoy_spec import EnvoySpec
from .ready import wait_until_ready

_SESSION_S = 30.0
"""Seconds the first session through Envoy gets; every replica has answered one by then."""

_MOST_ENVOYS = 32
"""Each takes some 40 MB and a thread or more: beyond this, what is missing is descriptors."""


class EnvoyTarget:
    """Starts replicas, or takes those given, and puts Envoy in front of them for as long as the context lasts.

    Raises:
        GrammarError: the specification has an unknown key or a value that cannot be used.
    """

    def __init__(self, spec: TargetSpec, context: TargetContext) -> None:
        self.spec = redact_target(spec)
        self._context = context
        self.asked = EnvoySpec(spec)
        self._life = ExitStack()

    def __enter__(self) -> Endpoint:
        """Start everything and return once a session was answered through Envoy; see `Target`."""
        with ExitStack() as life:
            endpoint = self._start(life)
            self._life = life.pop_all()
        return endpoint

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop Envoy, then the replicas that were started."""
        self._life.close()

    def _start(self, life: ExitStack) -> Endpoint:
        asked, given = self.asked, self.asked.given
        executable, count = find_envoy(), self._envoys()  # Before anything else is started in vain.
        began = time.monotonic()
        headers = dict(self._context.headers)
        replicas = life.enter_context(self.replicas())
        late = replicas.wait(headers)
        fleet = life.enter_context(self._fleet(executable, count, replicas))
        fleet.wait()
        front = Front(replicas, fleet, asked.policy)
        life.callback(front.stop)
        limits = {"replicas": asked.replicas, **asked.told_limits, **replicas.limits}
        endpoint = Endpoint(
            urls=(fleet.url,),
            label=given.text("label") or f"envoy-{asked.kind}",
            target=self.spec,
            cores=given.count("cores") or replicas.cores,
            hosts=asked.replicas,
            limits={**limits, "lb": asked.policy, "envoys": fleet.count},
            headers=headers,
            hardware=given.text("hardware"),
            notes=(*replicas.notes, *late, *backlog_notes(self._context.largest_batch)),
            sampler=replicas.sample,
            log_reader=front.log_tail,
            exit_reader=front.exit_status,
            proxy_reader=front.look,
        )
        self._play_through(endpoint, front)
        return replace(endpoint, startup_s=time.monotonic() - began)

    def replicas(self) -> Replicas:
        """Return what stands behind Envoy, before it is started."""
        asked = self.asked
        if asked.kind == "urls":
            return GivenReplicas(asked.urls, self._context)
        if asked.kind == "docker":
            return ContainerReplicas(asked.image, self._context, count=asked.replicas, target=self.spec)
        return LocalReplicas(asked.server, self._context, count=asked.replicas, target=self.spec)

    def _envoys(self) -> int:
        largest = self._context.largest_batch
        nofile = self.asked.given.count("nofile") or resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        count = envoys_needed(largest, nofile)
        if count > _MOST_ENVOYS:
            raise TargetError(
                f"target envoy: a batch of {largest} takes {count} Envoys of {nofile} open files each, and at most "
                f"{_MOST_ENVOYS} are started; write a larger nofile=, or raise ulimit -Hn"
            )
        return count

    def settings(self, backends: tuple[Backend, ...]) -> EnvoySettings:
        """Return what Envoy is configured with in front of these servers."""
        given, largest = self.asked.given, self._context.largest_batch
        return EnvoySettings(
            port=given.count("port") or 0,
            backends=backends,
            policy=self.asked.policy,
            breaker=given.count("max_connections") or breaker_for(largest),
            backlog=backlog_for(largest),
        )

    def _fleet(self, executable: str, count: int, replicas: Replicas) -> EnvoyFleet:
        given, settings = self.asked.given, self.settings(replicas.backends)
        threads = given.count("threads") or threads_for(usable_cores(), count)
        return EnvoyFleet(executable, settings, count=count, threads=threads, nofile=given.count("nofile"))

    def _play_through(self, endpoint: Endpoint, front: Front) -> None:
        try:
            wait_until_ready(endpoint.urls, endpoint.headers, _SESSION_S, front.exit_status, modes=self._context.modes)
        except TargetError as error:
            log = front.log_tail(20)
            message = f"target {self.spec}: every replica answers a session, but not through Envoy: {error}"
            raise TargetError(f"{message}\n{log}" if log.strip() else message) from None
