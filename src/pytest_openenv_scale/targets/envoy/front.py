"""What an Envoy endpoint tells while it is measured: of the replicas, and of the Envoys in front of them."""

from __future__ import annotations

from typing import Protocol

from pytest_openenv_scale.core.spread import LOG_LINES, HostLook, ProxyLook

from .envoy_admin import AdminError, HostState
from .envoy_config import TAKEN_OUT_S
from .envoy_replicas import Replicas
from .envoy_watch import Watch


class Fleet(Protocol):
    """The Envoys in front of the replicas, wherever they run: what `EnvoyFleet` tells while it is measured."""

    def each(self) -> tuple[tuple[HostState, ...], ...]:
        """Return what each Envoy knows of the replicas."""
        ...

    def hosts(self) -> tuple[HostState, ...]:
        """Return what the Envoys know of the replicas, summed."""
        ...

    def overflows(self) -> dict[str, int]:
        """Return how often circuit breakers refused, summed."""
        ...

    def usage(self) -> tuple[int | None, float | None]:
        """Return resident memory in bytes and CPU seconds; None where they cannot be read."""
        ...

    def exit_status(self) -> str | None:
        """Say which Envoy ended and how, or None while all run."""
        ...

    def log_tail(self, lines: int) -> str:
        """Return the last lines of the Envoys' logs."""
        ...


class Front:
    """Replicas that serve and the Envoys in front of them, watched until `stop()`; `policy` is how they spread."""

    def __init__(self, replicas: Replicas, fleet: Fleet, policy: str) -> None:
        self._replicas = replicas
        self._fleet = fleet
        self._name = f"Envoy ({policy})"
        self._hosts = tuple(backend.name for backend in replicas.backends)
        self._requests: dict[str, int] = {}
        self._watch = Watch(self._hosts, replicas.exit_status, fleet.each)
        self._watch.start()

    def stop(self) -> None:
        """Stop watching."""
        self._watch.stop()

    def exit_status(self) -> str | None:
        """Say which replica or Envoy ended and how, or None while all run."""
        for number, host in enumerate(self._hosts):
            status = self._replicas.exit_status(number)
            if status is not None:
                return f"replica {host} {status}"
        return self._fleet.exit_status()

    def look(self) -> ProxyLook | None:
        """Return how the sessions were spread so far, and what befell the replicas; None if Envoy is gone."""
        events = self._watch.events(settle_s=TAKEN_OUT_S)
        try:
            states, overflows = self._fleet.hosts(), self._fleet.overflows()
        except AdminError:
            return None
        rss_bytes, cpu_seconds = self._fleet.usage()
        return ProxyLook(
            name=self._name,
            hosts=tuple(self._look_at(state) for state in states),
            overflows=overflows,
            events=events,
            rss_bytes=rss_bytes,
            cpu_seconds=cpu_seconds,
        )

    def _look_at(self, state: HostState) -> HostLook:
        # Reading a log can be slow (a container's); only that of a host in trouble, or left out, is of use.
        idle = self._requests.get(state.host) == state.requests
        self._requests[state.host] = state.requests
        log = self._replicas.log_tail(self._hosts.index(state.host), LOG_LINES) if state.trouble or idle else ""
        return HostLook(state.host, state.requests, state.connect_failures, state.trouble, log)

    def log_tail(self, lines: int) -> str:
        """Return the end of the log of what failed; while nothing has, that of every replica and of Envoy."""
        failed = [number for number in range(len(self._hosts)) if self._replicas.exit_status(number) is not None]
        if not failed:
            failed = self._unhealthy()
        shown = failed or list(range(len(self._hosts)))
        each = max(lines // len(shown), 1)
        tails = [(self._hosts[number], self._replicas.log_tail(number, each)) for number in shown]
        tails += [("Envoy", self._fleet.log_tail(each))] if not failed or self._fleet.exit_status() else []
        return "\n".join(f"[{name}] {line}" for name, tail in tails for line in tail.splitlines() if line.strip())

    def _unhealthy(self) -> list[int]:
        try:
            return [self._hosts.index(state.host) for state in self._fleet.hosts() if state.trouble]
        except AdminError:
            return []
