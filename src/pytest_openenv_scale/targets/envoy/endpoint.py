"""An Envoy endpoint while it is measured: the state of its Envoys, and which replica died when."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from pytest_openenv_scale.client.http_request import HTTP_ERRORS, http_request
from pytest_openenv_scale.core.endpoint import LOG_LINES, ExitStatus, HostEvent, HostSnapshot, ProxySnapshot
from pytest_openenv_scale.core.system import wait_for

from .config import UNHEALTHY_DETECTION_S
from .pool import AdminError, EnvoyPool, HostState
from .replicas import Hosts


class EnvoyEndpoint:
    """Replicas that serve and the Envoys in front of them, watched until `stop()`; `policy` is how they spread."""

    def __init__(self, replicas: Hosts, pool: EnvoyPool, policy: str) -> None:
        self._replicas = replicas
        self._pool = pool
        self._name = f"Envoy ({policy})"
        self._hosts = tuple(backend.name for backend in replicas.backends)
        self._requests: dict[str, int] = {}
        self._watch = ReplicaWatch(self._hosts, replicas.exit_status, pool.hosts_by_envoy)
        self._watch.start()

    def stop(self) -> None:
        """Stop watching."""
        self._watch.stop()

    def exit_status(self) -> ExitStatus | None:
        """Return which replica or Envoy ended and how, or None while all run."""
        for number, host in enumerate(self._hosts):
            status = self._replicas.exit_status(number)
            if status is not None:
                return status.of(f"replica {host}")
        return self._pool.exit_status()

    def snapshot(self) -> ProxySnapshot | None:
        """Return how the sessions were spread so far, and what befell the replicas; None if Envoy is gone."""
        events = self._watch.events(settle_s=UNHEALTHY_DETECTION_S)
        try:
            states, overflows = self._pool.hosts(), self._pool.overflows()
        except AdminError:
            return None
        rss_bytes, cpu_seconds = self._pool.usage()
        return ProxySnapshot(
            name=self._name,
            hosts=tuple(self._host_snapshot(state) for state in states),
            overflows=overflows,
            events=events,
            rss_bytes=rss_bytes,
            cpu_seconds=cpu_seconds,
        )

    def _host_snapshot(self, state: HostState) -> HostSnapshot:
        # Reading a log can be slow (a container's); only that of a host in trouble, or left out, is of use.
        idle = self._requests.get(state.host) == state.requests
        self._requests[state.host] = state.requests
        log = self._replicas.log_tail(self._hosts.index(state.host), LOG_LINES) if state.trouble or idle else ""
        return HostSnapshot(state.host, state.requests, state.connect_failures, state.trouble, log)

    def log_tail(self, lines: int) -> str:
        """Return the end of the log of what failed; while nothing has, that of every replica and of Envoy."""
        failed = [number for number in range(len(self._hosts)) if self._replicas.exit_status(number) is not None]
        if not failed:
            failed = self._unhealthy_numbers()
        numbers = failed or list(range(len(self._hosts)))
        lines_each = max(lines // len(numbers), 1)
        tails = [(self._hosts[number], self._replicas.log_tail(number, lines_each)) for number in numbers]
        tails += [("Envoy", self._pool.log_tail(lines_each))] if not failed or self._pool.exit_status() else []
        return "\n".join(f"[{name}] {line}" for name, tail in tails for line in tail.splitlines() if line.strip())

    def _unhealthy_numbers(self) -> list[int]:
        try:
            return [self._hosts.index(state.host) for state in self._pool.hosts() if state.trouble]
        except AdminError:
            return []


_WATCH_PERIOD_S = 0.2
"""Seconds between two checks: a fraction of the time Envoy takes to notice, and next to no work for it."""

_ANSWER_S = 0.5
"""Seconds a replica gets to answer us between two cells, when nothing keeps it busy."""


class ReplicaWatch:
    """Checks every replica from a thread of its own, from `start()` to `stop()`, and records what changed.

    `hosts` name the replicas, `exit_status(n)` is how the n-th ended, `hosts_by_envoy()` what each Envoy knows.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        exit_status: Callable[[int], ExitStatus | None],
        hosts_by_envoy: Callable[[], Sequence[Sequence[HostState]]],
    ) -> None:
        self._hosts = tuple(hosts)
        self._exit_status = exit_status
        self._hosts_by_envoy = hosts_by_envoy
        self._events: list[HostEvent] = []
        self._dead: set[str] = set()
        self._taken_out: set[str] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="openenv-scale-envoy-watch", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait for its end."""
        self._stopped.set()
        self._thread.join()

    def events(self, settle_s: float = 0.0) -> tuple[HostEvent, ...]:
        """Return what happened so far; waits up to `settle_s` for Envoy to take out what does not answer."""
        wait_for(lambda: not (self.check_once() and self._silent_hosts()), settle_s, _WATCH_PERIOD_S / 2)
        with self._lock:
            return tuple(self._events)

    def _silent_hosts(self) -> list[str]:
        """Return the replicas that do not answer a health check of ours although Envoy still counts on them."""
        return [host for host in self._hosts if host not in self._taken_out and not _answers_health_check(host)]

    def check_once(self) -> bool:
        """Check once and say whether Envoy answered; one check at a time, so that their results stay in order."""
        with self._lock:
            for number, host in enumerate(self._hosts):
                status = self._exit_status(number) if host not in self._dead else None
                if status is not None:
                    self._dead.add(host)
                    self._events.append(HostEvent(host, "died", time.monotonic(), exit=status))
            try:
                states = self._hosts_by_envoy()
            except AdminError:
                return False
            self._record_changes(_hosts_taken_out(states), time.monotonic())
            return True

    def _record_changes(self, taken_out: dict[str, str], now_s: float) -> None:
        for host in sorted(taken_out.keys() - self._taken_out):
            self._events.append(HostEvent(host, "out", now_s, taken_out[host]))
        for host in sorted(self._taken_out - taken_out.keys()):
            self._events.append(HostEvent(host, "back", now_s))
        self._taken_out = set(taken_out)

    def _run(self) -> None:
        while not self._stopped.wait(_WATCH_PERIOD_S):
            self.check_once()


def _answers_health_check(host: str) -> bool:
    """Say whether something at HOST:PORT answers `GET /health`, whatever the answer."""
    try:
        with http_request(f"http://{host}/health", {}, _ANSWER_S):
            return True
    except HTTP_ERRORS:
        return False


def _hosts_taken_out(states: Sequence[Sequence[HostState]]) -> dict[str, str]:
    """Return the replicas that no Envoy sends sessions to, with the flags that say why."""
    flags_by_host: dict[str, list[str]] = {}
    for state in states:
        for host in state:
            if host.trouble:
                flags_by_host.setdefault(host.host, []).append(host.trouble)
    return {host: flags[0] for host, flags in flags_by_host.items() if len(flags) == len(states)}
