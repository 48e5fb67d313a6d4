"""Watches the replicas behind Envoy: which one died when, and how long Envoy went on with it."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from pytest_openenv_scale.core.spread import HostEvent

from .envoy_admin import AdminError, HostState

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
