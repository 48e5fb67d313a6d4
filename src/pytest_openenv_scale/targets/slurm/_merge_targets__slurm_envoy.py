"""An Envoy that runs on a node: read through the view its scripts open, which can only be read."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from pytest_openenv_scale.core.endpoint import TargetError
from pytest_openenv_scale.core.last_words import in_words

from .envoy_admin import Admin, AdminError, HostState
from .envoy_fleet import EnvoyFleet
from .envoy_front import Fleet
from .ready import wait_until_ready
from .slurm_job import JobFolder, Serving, with_log
from .slurm_nodes import Node
from .slurm_replicas import NodeServers, refusal

_PAUSE_S = 0.2
_BURST = 4
"""Sessions per host and thread of Envoy that are played through it before anything is measured."""

_AT_ONCE = 8
_SESSION_S = 30.0


class NodeEnvoy:
    """Envoy on `node`, part of `job`; its statistics are read at `stats_port`."""

    count = 1

    def __init__(self, node: Node, port: int, stats_port: int, job: Serving, folder: JobFolder) -> None:
        self._node = node
        self._port = port
        self._job = job
        self._folder = folder
        self._admin = Admin(f"{node.address}:{stats_port}")

    @property
    def url(self) -> str:
        """Where clients reach the servers."""
        return self._node.url(self._port)

    def wait(self, within_s: float) -> None:
        """Return once it is ready and finds every server healthy.

        Raises:
            TargetError: it ended, or is not in time; says which node, and what Envoy says of the servers.
        """
        until = time.monotonic() + within_s
        while (trouble := self._trouble()) is not None:
            ended = self._ended() or self._job.ended()
            if ended or time.monotonic() >= until:
                log = self.log_tail(10)
                why = f"{ended} before it was ready" if ended else f"{trouble} after {within_s:.0f} s"
                message = f"target slurm: Envoy on {self._node.at(self._port)}: {why}"
                shown = with_log(message, self._folder) if ended else message
                raise TargetError(f"{shown}\nEnvoy's log ends:\n{log}" if log.strip() else shown)
            time.sleep(_PAUSE_S)

    def _trouble(self) -> str | None:
        try:
            if not self._admin.ready():
                return "it was not ready"
            ill = [f"{state.host} ({state.trouble})" for state in self.hosts() if state.trouble]
        except AdminError as error:
            return str(error)
        return f"its health check GET /health did not succeed at {'; '.join(ill)}" if ill else None

    def each(self) -> tuple[tuple[HostState, ...], ...]:
        """See `Fleet`."""
        return (self.hosts(),)

    def hosts(self) -> tuple[HostState, ...]:
        """See `Fleet`."""
        return self._admin.hosts()

    def overflows(self) -> dict[str, int]:
        """See `Fleet`."""
        return self._admin.overflows()

    def usage(self) -> tuple[int | None, float | None]:
        """See `Fleet`; it runs elsewhere."""
        return None, None

    def exit_status(self) -> str | None:
        """See `Fleet`."""
        refused = refusal(self._node.address, self._port)
        return self._ended() or (f"Envoy on {self._node.at(self._port)} {refused}" if refused else None)

    def _ended(self) -> str | None:
        text = self._folder.tail("envoy.exit", 1).strip()
        if not text.isdecimal():
            return None
        code = int(text)
        return f"Envoy on {self._node.name} {in_words(128 - code if 128 < code < 128 + 65 else code)}"

    def log_tail(self, lines: int) -> str:
        """See `Fleet`."""
        return self._folder.tail("envoy.log", lines)


class OnNodes:
    """An Envoy or several, in whose words on a host in trouble the node it is on is named."""

    def __init__(self, fleet: NodeEnvoy | EnvoyFleet, servers: NodeServers) -> None:
        self._fleet = fleet
        self._servers = servers
        self.overflows = fleet.overflows
        self.usage = fleet.usage
        self.exit_status = fleet.exit_status
        self.log_tail = fleet.log_tail

    def each(self) -> tuple[tuple[HostState, ...], ...]:
        """See `Fleet`."""
        return tuple(self._named(states) for states in self._fleet.each())

    def hosts(self) -> tuple[HostState, ...]:
        """See `Fleet`."""
        return self._named(self._fleet.hosts())

    def _named(self, states: Sequence[HostState]) -> tuple[HostState, ...]:
        return tuple(self._name(state) if state.trouble else state for state in states)

    def _name(self, state: HostState) -> HostState:
        return replace(state, trouble=f"{state.trouble} on {self._servers.node_of(state.host)}")


def reach_every_host(
    url: str, servers: NodeServers, fleet: Fleet, headers: Mapping[str, str], modes: Sequence[str], *, threads: int
) -> None:
    """Play a small burst of sessions through Envoy and check, by its own counts, that every host got some.

    Raises:
        TargetError: names the host that got none, its node, and what Envoy says of it.
    """
    before = {state.host: state.requests for state in fleet.hosts()}
    count = _BURST * max(threads, 1) * len(before)

    def play(number: int) -> float:
        return wait_until_ready((url,), headers, _SESSION_S, modes=modes)

    try:
        with ThreadPoolExecutor(min(len(before), _AT_ONCE)) as pool:
            list(pool.map(play, range(count)))
    except TargetError as error:
        raise TargetError(f"target slurm: every node answers a session, but not through Envoy: {error}") from None
    for state in fleet.hosts():
        if state.requests == before.get(state.host, 0):
            ill = f"Envoy says {state.trouble}" if state.trouble else "Envoy finds it healthy"
            node = servers.node_of(state.host)
            raise TargetError(
                f"target slurm: of {count} sessions through Envoy at {url} none reached {node} ({state.host}): {ill}; "
                f"see its log, or leave the node out with extra=--exclude={node}"
            )
