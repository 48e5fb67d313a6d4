"""The servers of a Slurm job, one per node, and an Envoy that runs on a node in front of them."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import psutil

from pytest_openenv_scale.core.endpoint import ExitStatus, ServerSample
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.text import LOG_LINES
from pytest_openenv_scale.targets.common.base import log_words, with_log
from pytest_openenv_scale.targets.common.options import FirstSession, TargetContext
from pytest_openenv_scale.targets.common.readiness import NotReadyError, Watch, wait_until_ready
from pytest_openenv_scale.targets.common.sampling import ProcessSampler, listening_processes
from pytest_openenv_scale.targets.envoy.config import Backend
from pytest_openenv_scale.targets.envoy.pool import Admin, EnvoyPool
from pytest_openenv_scale.targets.envoy.replicas import Hosts

from .job import JobFolder, ServingJob
from .job_info import Job, Node, format_nodes
from .spec import JobIdentity

_ANSWER_S = 1.0
"""Seconds a server gets to take a connection before it may be gone: a busy one takes its time."""

_EXIT_REPORT_S = 3.0
"""Seconds the scripts, or Slurm, get to report how a server that is gone has ended."""

_PAUSE_S = 0.2


@dataclass(frozen=True)
class Serving:
    """What runs the servers, its allocation and the nodes of it that serve, what the job is called, and its logs."""

    script: ServingJob
    allocation: Job
    nodes: tuple[Node, ...]
    job: JobIdentity
    folder: JobFolder

    @property
    def cpus_per_node(self) -> int:
        """The CPUs of each node."""
        return max((self.allocation.cpus or 1) // len(self.nodes), 1)


class NodeServers(Hosts):
    """The servers on the nodes of a job; `limits` are the settings of each."""

    def __init__(
        self, serving: Serving, context: TargetContext, *, limits: Mapping[str, str | int], start_s: float
    ) -> None:
        self._nodes = serving.nodes
        self._port = serving.job.port
        self._job = serving.script
        self._folder = serving.folder
        self._context = context
        self.backends = tuple(Backend(node.address, self._port) for node in self._nodes)
        self.limits = limits
        self.cores = serving.allocation.cpus
        self._start_s = start_s
        self._sampler = ProcessSampler(())

    @property
    def urls(self) -> tuple[str, ...]:
        """Where each server is reached."""
        return tuple(node.url(self._port) for node in self._nodes)

    @property
    def node_names(self) -> dict[str, str]:
        """The name of the node that each host such as "127.0.0.2:8000" is on."""
        return {backend.name: node.name for backend, node in zip(self.backends, self._nodes, strict=True)}

    def wait(self, headers: Mapping[str, str]) -> None:
        """Return once a session was answered on every node.

        Raises:
            TargetError: names the node, says what is wrong there, and ends with its server's log.
        """
        deadline = time.monotonic() + self._start_s
        # One after another, in this thread, where an interrupt ends the waiting: they start side by side anyway.
        for number in range(len(self._nodes)):
            self._wait_for_node(number, headers, deadline)
        if all(_is_local_address(node.address) for node in self._nodes):
            self._sampler = ProcessSampler(listening_processes(self._port))

    def _wait_for_node(self, number: int, headers: Mapping[str, str], deadline: float) -> None:
        node = self._nodes[number]
        url, remaining_s = node.url(self._port), max(deadline - time.monotonic(), 1.0)
        try:
            watch = Watch(
                state=lambda: f"job {self._job.id} runs, {log_words(self.log_tail(number, 1))}",
                show=self._context.show_status,
                prefix=f"slurm: waiting for {node.name}",
            )
            wait_until_ready(
                (url,), headers, remaining_s, self._first_exit, session=self._context.first_session, watch=watch
            )
        except NotReadyError as error:
            culprits = [number]
            if error.exit is not None:
                culprits = [other for other in range(len(self._nodes)) if self.exit_status(other)]
            if not culprits:
                raise TargetError(self._folder.with_log(f"target slurm: {error.exit} before it served")) from None
            server = f"the server on {self._nodes[culprits[0]].server_label(self._port)}"
            raise error.target_error(
                "slurm", server=server, at=server, with_log=lambda text: self._with_log(text, culprits[0])
            ) from None

    def _first_exit(self) -> ExitStatus | None:
        """Return how a server, or the job, has ended: there is no use in waiting for the others."""
        statuses = (self._own_exit_status(node) for node in self._nodes)
        return next(filter(None, statuses), None) or self._job.exit_status()

    def _with_log(self, message: str, number: int) -> str:
        log = self.log_tail(number, LOG_LINES)
        if not log.strip():
            return self._folder.with_log(message)
        return with_log(message, log, f"the log of {self._nodes[number].name}")

    def exit_status(self, number: int) -> ExitStatus | None:
        """See `Hosts`; names the node."""
        node = self._nodes[number]
        status = self._own_exit_status(node)
        return status.of(f"on {node.name}") if status else None

    def _own_exit_status(self, node: Node) -> ExitStatus | None:
        return self._folder.exit_status(f"server-{node.name}.exit")

    def log_tail(self, number: int, lines: int) -> str:
        """See `Hosts`."""
        return self._folder.tail(f"server-{self._nodes[number].name}.log", lines)

    def sample(self) -> ServerSample | None:
        """See `Hosts`; None where the nodes are other machines."""
        return self._sampler.sample()

    def servers_end(self) -> ExitStatus | None:
        """Return how the servers ended, or None while one takes connections and the job runs.

        Slurm is asked only once one does not: a controller has better things to do during a measurement.
        """
        refusals = [connection_refusal(node.address, self._port) for node in self._nodes]
        if not any(refusals):
            return None
        deadline = time.monotonic() + _EXIT_REPORT_S
        while (ended := self.job_end()) is None and all(refusals) and time.monotonic() < deadline:
            if len(self._nodes) == 1 and (status := self.exit_status(0)):
                return status.of("the server")
            time.sleep(_PAUSE_S)
        if ended or not all(refusals):
            return ended
        text = f"{format_nodes(self._nodes)} {refusals[-1]}, and job {self._job.id} still runs"
        return ExitStatus("other", text)

    def job_end(self) -> ExitStatus | None:
        """Return how the job ended, by Slurm's word of this moment, and on which nodes; None while it runs."""
        ended = self._job.exit_status(now=True)
        return replace(ended, text=f"{ended} on {format_nodes(self._nodes)}") if ended else None


def connection_refusal(address: str, port: int) -> str | None:
    """Say how a server turns connections away; None where it takes them, or takes long."""
    try:
        with socket.create_connection((address, port), _ANSWER_S):
            return None
    except TimeoutError:
        return None
    except OSError as error:
        return f"takes no connections any more ({error.strerror or error})"


def _is_local_address(address: str) -> bool:
    if ipaddress.ip_address(address).is_loopback:
        return True
    return any(entry.address == address for entries in psutil.net_if_addrs().values() for entry in entries)


_SESSIONS_PER_THREAD = 4
"""Sessions per host and thread of Envoy that are played through it before anything is measured."""

_CONCURRENT_SESSIONS = 8
SESSION_S = 30.0


class NodeEnvoy(EnvoyPool):
    """Envoy on the first node of a job."""

    def __init__(self, serving: Serving, node_names: Mapping[str, str]) -> None:
        self._node = serving.nodes[0]
        self._port = serving.job.envoy_port
        self._job = serving.script
        self._folder = serving.folder
        self._admin = Admin(f"{self._node.address}:{serving.job.stats_port}")
        self.threads = max(serving.cpus_per_node // 2, 1)
        self.node_names = node_names
        self.error_prefix = f"target slurm: on {self._node.server_label(self._port)}"

    @property
    def url(self) -> str:
        """See `EnvoyPool`."""
        return self._node.url(self._port)

    def admins(self) -> Sequence[Admin]:
        """See `EnvoyPool`."""
        return [self._admin]

    def start_failure(self) -> ExitStatus | None:
        """See `EnvoyPool`; until it is ready it takes no connections."""
        return self._own_exit_status() or self._job.exit_status()

    def with_log(self, message: str) -> str:
        """See `EnvoyPool`; where it ended, the job's output says more."""
        return super().with_log(self._folder.with_log(message) if self.start_failure() else message)

    def exit_status(self) -> ExitStatus | None:
        """See `EnvoyPool`."""
        refused = connection_refusal(self._node.address, self._port)
        if (status := self._own_exit_status()) is not None or refused is None:
            return status
        return ExitStatus("other", f"Envoy on {self._node.server_label(self._port)} {refused}")

    def _own_exit_status(self) -> ExitStatus | None:
        status = self._folder.exit_status("envoy.exit")
        return status.of(f"Envoy on {self._node.name}") if status else None

    def log_tail(self, lines: int) -> str:
        """See `EnvoyPool`."""
        return self._folder.tail("envoy.log", lines)


def reach_every_host(
    servers: NodeServers, pool: EnvoyPool, headers: Mapping[str, str], session: FirstSession, *, session_s: float
) -> None:
    """Play a small burst of sessions through Envoy and check, by its own counts, that every host got some.

    Raises:
        TargetError: names the host that got none, its node, and what Envoy says of it.
    """
    before = {state.host: state.requests for state in pool.hosts()}
    count = _SESSIONS_PER_THREAD * pool.threads * pool.count * len(before)

    def play(number: int) -> float:
        return wait_until_ready((pool.url,), headers, session_s, session=session)

    try:
        with ThreadPoolExecutor(min(len(before), _CONCURRENT_SESSIONS)) as executor:
            list(executor.map(play, range(count)))
    except TargetError as error:
        raise TargetError(f"target slurm: every node answers a session, but not through Envoy: {error}") from None
    for state in pool.hosts():
        if state.requests == before.get(state.host, 0):
            health = f"Envoy says {state.trouble}" if state.trouble else "Envoy finds it healthy"
            node = servers.node_names.get(state.host, state.host)
            raise TargetError(
                f"target slurm: of {count} sessions through Envoy at {pool.url} none reached {node} ({state.host}): "
                f"{health}; see its log, or leave the node out with extra=--exclude={node}"
            )
