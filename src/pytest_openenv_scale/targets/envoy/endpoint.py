"""What an Envoy endpoint tells while it is measured: of the Envoys, and of which replica died when."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from pytest_openenv_scale.core.endpoint import LOG_LINES, HostEvent, HostSnapshot, ProxySnapshot

from .config import TAKEN_OUT_S
from .pool import AdminError, HostState
from .replicas import Replicas


class EnvoyPool(Protocol):
    """The Envoys in front of the replicas, wherever they run: what `LocalEnvoyPool` tells while it is measured."""

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


class EnvoyEndpoint:
    """Replicas that serve and the Envoys in front of them, watched until `stop()`; `policy` is how they spread."""

    def __init__(self, replicas: Replicas, fleet: EnvoyPool, policy: str) -> None:
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

    def snapshot(self) -> ProxySnapshot | None:
        """Return how the sessions were spread so far, and what befell the replicas; None if Envoy is gone."""
        events = self._watch.events(settle_s=TAKEN_OUT_S)
        try:
            states, overflows = self._fleet.hosts(), self._fleet.overflows()
        except AdminError:
            return None
        rss_bytes, cpu_seconds = self._fleet.usage()
        return ProxySnapshot(
            name=self._name,
            hosts=tuple(self._look_at(state) for state in states),
            overflows=overflows,
            events=events,
            rss_bytes=rss_bytes,
            cpu_seconds=cpu_seconds,
        )

    def _look_at(self, state: HostState) -> HostSnapshot:
        # Reading a log can be slow (a container's); only that of a host in trouble, or left out, is of use.
        idle = self._requests.get(state.host) == state.requests
        self._requests[state.host] = state.requests
        log = self._replicas.log_tail(self._hosts.index(state.host), LOG_LINES) if state.trouble or idle else ""
        return HostSnapshot(state.host, state.requests, state.connect_failures, state.trouble, log)

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


_EVERY_S = 0.2
"""Seconds between two looks: a fraction of the time Envoy takes to notice, and next to no work for it."""

_ANSWER_S = 0.5
"""Seconds a replica gets to answer us between two cells, when nothing keeps it busy."""


class Watch:
    """Looks at every replica from a thread of its own, from `start()` to `stop()`.

    `hosts` name the replicas, `exit_status(n)` says how the n-th ended, and `each()` is what each Envoy knows.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        exit_status: Callable[[int], str | None],
        each: Callable[[], Sequence[Sequence[HostState]]],
    ) -> None:
        self._hosts = tuple(hosts)
        self._exit_status = exit_status
        self._each = each
        self._events: list[HostEvent] = []
        self._dead: dict[str, str] = {}
        self._out: set[str] = set()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="openenv-scale-envoy-watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def events(self, settle_s: float = 0.0) -> tuple[HostEvent, ...]:
        """Return what happened so far; waits up to `settle_s` for Envoy to take out what does not answer."""
        until = time.monotonic() + settle_s
        while self.look() and self._silent() and time.monotonic() < until:
            time.sleep(_EVERY_S / 2)
        with self._lock:
            return tuple(self._events)

    def _silent(self) -> list[str]:
        """Return the replicas that do not answer a health check of ours although Envoy still counts on them."""
        return [host for host in self._hosts if host not in self._out and not _answers(host)]

    def look(self) -> bool:
        """Look once and say whether Envoy answered; one look at a time, so that none is compared with a later one."""
        with self._lock:
            for number, host in enumerate(self._hosts):
                status = self._exit_status(number) if host not in self._dead else None
                if status is not None:
                    self._dead[host] = status
                    self._events.append(HostEvent(host, "died", datetime.now(UTC), status))
            try:
                states = self._each()
            except AdminError:
                return False
            self._compare(_out_everywhere(states), datetime.now(UTC))
            return True

    def _compare(self, out: dict[str, str], now: datetime) -> None:
        for host in sorted(out.keys() - self._out):
            self._events.append(HostEvent(host, "out", now, out[host]))
        for host in sorted(self._out - out.keys()):
            self._events.append(HostEvent(host, "back", now))
        self._out = set(out)

    def _run(self) -> None:
        while not self._over.wait(_EVERY_S):
            self.look()


def _answers(host: str) -> bool:
    """Say whether something at HOST:PORT answers `GET /health`, whatever the answer."""
    connection = http.client.HTTPConnection(host, timeout=_ANSWER_S)
    try:
        connection.request("GET", "/health")
        connection.getresponse()
        return True
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _out_everywhere(states: Sequence[Sequence[HostState]]) -> dict[str, str]:
    """Return the replicas that no Envoy sends sessions to, with the flags that say why."""
    found: dict[str, list[str]] = {}
    for state in states:
        for host in state:
            if host.trouble:
                found.setdefault(host.host, []).append(host.trouble)
    return {host: flags[0] for host, flags in found.items() if len(flags) == len(states)}
