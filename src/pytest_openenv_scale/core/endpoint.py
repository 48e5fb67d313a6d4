"""A server that can be measured, whoever started it: where it answers, how it ended, how a proxy spreads sessions."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Literal, Protocol, Self

from .serialization import Jsonable
from .system import is_loopback


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy that opens tunnels (`CONNECT`). `authorization` is sent to it alone and never shown."""

    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def headers(self) -> Mapping[str, str]:
        """What it is sent with each `CONNECT`."""
        return {"Proxy-Authorization": self.authorization} if self.authorization else {}

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class Network:
    """How servers are reached: by a `proxy` (None: straight). With `insecure`, TLS certificates are not checked."""

    insecure: bool = False
    proxy: Proxy | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What every report says of it."""
        return (
            *(("TLS certificates were not checked (--openenv-insecure)",) if self.insecure else ()),
            *((f"reached by the proxy {self.proxy} (--openenv-proxy)",) if self.proxy else ()),
        )

    def destinations(self, urls: Sequence[str]) -> tuple[str, ...]:
        """Return the URLs that connections to servers at `urls` are made to: the proxy's, where there is one."""
        return (self.proxy.url,) if self.proxy else tuple(urls)


DIRECT = Network()
"""Straight to the server, its certificate checked."""


_SHELL = 128
"""A shell, and a container engine, tell of a process killed by signal N as exit code 128 + N."""


@dataclass(frozen=True, slots=True)
class ExitStatus(Jsonable):
    """How something ended that served; `text` says it in one line: "exited with code 1".

    `kind` is `exited` (with `code`), `killed` (by `signal`, a name such as SIGKILL), `stage` (a Space that left its
    stage RUNNING, for `stage`), `job` (a job of Slurm that ended as `stage`) or `other`. `out_of_memory` is set where
    whoever runs it says that it was killed for lack of memory.
    """

    kind: Literal["exited", "killed", "stage", "job", "other"]
    text: str
    code: int | None = None
    signal: str | None = None
    out_of_memory: bool = False
    stage: str | None = None

    @classmethod
    def from_returncode(cls, code: int) -> Self:
        """Read a return code of `subprocess`: negative for a signal."""
        if code >= 0:
            name = _signal_name(code - _SHELL) if code > _SHELL else None
            return cls("exited", f"exited with code {code}", code=code, signal=name)
        name = _signal_name(-code)
        return cls("killed", f"killed by {name or f'signal {-code}'}", signal=name)

    @classmethod
    def from_shell(cls, code: int) -> Self:
        """Read the exit code of a command that a shell ran: beyond 128 it stands for a signal."""
        return cls.from_returncode(_SHELL - code if _SHELL < code <= _SHELL + 64 else code)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a sentence of a run of version 0.1, or of a target that gives no more than a sentence."""
        code = re.search(r"\bexited with code (\d{1,10})\b", text)
        by_signal = re.search(r"\bkilled by (?:(SIG\w+)|signal \d+)", text)
        stage = re.search(r"^the Space .*\(stage (\w+)\)", text)
        job = re.search(r"\bjob \d+ ended as (\w+)", text)
        number = int(code[1]) if code else None
        named = stage or job
        return cls(
            "stage" if stage else "job" if job else "exited" if code else "killed" if by_signal else "other",
            text,
            code=number,
            signal=by_signal[1] if by_signal else _signal_name(number - _SHELL) if number else None,
            out_of_memory="out of memory" in text,
            stage=named[1] if named else None,
        )

    @property
    def was_killed(self) -> bool:
        """Whether SIGKILL ended it: sent from outside, or by the kernel for lack of memory."""
        return self.signal == "SIGKILL"

    def of(self, subject: str) -> Self:
        """Return the same status with a name in front of its text: `of("replica 127.0.0.2:8000")`."""
        return replace(self, text=f"{subject} {self.text}")

    def __str__(self) -> str:
        return self.text


def _signal_name(number: int) -> str | None:
    try:
        return signal.Signals(number).name
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class ServerSample:
    """One look at a server's processes, summed over the process tree; None where it cannot be read.

    `at_s` is `time.monotonic()` in seconds and `cpu_seconds` counts from the start of the processes.
    `descriptors` and `descriptor_limit` describe the one process closest to its limit, `all_descriptors` counts those
    of all. `restarts` counts how often a container was started again. `open_sessions` is how many sessions its client
    had open at that moment, where that is known.
    """

    at_s: float
    processes: int | None = None
    cpu_seconds: float | None = None
    rss_bytes: int | None = None
    threads: int | None = None
    descriptors: int | None = None
    descriptor_limit: int | None = None
    restarts: int | None = None
    all_descriptors: int | None = None
    open_sessions: int | None = None


@dataclass(frozen=True, slots=True)
class SessionSettings(Jsonable):
    """What the source of an application says of the sessions that each of its workers holds; None: it leaves that open.

    `function` makes its app (create_app; ConcurrencyConfig where the limit is in one), at `call` ("server/app.py:31").
    `argument` is the limit written there (1 where none is), `variable` the environment variable that it is read from,
    `option` the option of the server's command that outranks both.
    `environment` is the class of the environment, at `class_at`; `flag` whether it is marked as
    SUPPORTS_CONCURRENT_SESSIONS. `shared` is where the one object is made that all sessions get, if it is one.
    """

    function: str
    call: str
    argument: int | None = None
    variable: str | None = None
    option: str | None = None
    environment: str | None = None
    class_at: str | None = None
    flag: bool | None = None
    shared: str | None = None


@dataclass
class SessionsHeld:
    """The `most` sessions known to have been open on a server at once, since it was started."""

    most: int = 0

    def note(self, sessions: int) -> None:
        """Note that so many were open at once, or may have been."""
        self.most = max(self.most, sessions)


@dataclass(frozen=True)
class Endpoint:
    """Where a server answers, and what is known about it.

    `urls` are http(s) or ws(s) base URLs over which sessions are spread round-robin. `limits` holds the
    settings the server was started with (for example `workers`, `max_envs`, `server`). `startup_s` is
    the time in seconds from the start of the server to its first answered session. `headers` are sent
    with every request and never shown. `default_limits` are limits of an SLO, by name, that hold for this
    endpoint unless others are written, such as the number of hosts that have to share a batch. `network` is how the
    URLs are reached. `session_settings` are what the application's source says, where it can be read. `backlog` is how
    many connections its kernel lets wait, where that is known. `shared_machines` says that its servers run where those
    of others may, as on the nodes of a cluster, however they are reached. `held` is kept up to
    date by what opens sessions.
    """

    urls: tuple[str, ...]
    label: str
    target: str
    cores: int | None = None
    hosts: int | None = None
    limits: Mapping[str, str | int] = field(default_factory=dict[str, str | int])
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    hardware: str | None = None
    startup_s: float = 0.0
    notes: tuple[str, ...] = ()
    default_limits: Mapping[str, float] = field(default_factory=dict[str, float])
    network: Network = DIRECT
    session_settings: SessionSettings | None = None
    backlog: int | None = None
    shared_machines: bool = False
    held: SessionsHeld = field(default_factory=SessionsHeld, repr=False, compare=False)
    sampler: Callable[[], ServerSample | None] = field(default=lambda: None, repr=False)
    log_reader: Callable[[int], str] = field(default=lambda lines: "", repr=False)
    exit_reader: Callable[[], ExitStatus | str | None] = field(default=lambda: None, repr=False)
    proxy_reader: Callable[[], ProxySnapshot | None] = field(default=lambda: None, repr=False)
    process_reader: Callable[[], frozenset[int] | None] = field(default=lambda: None, repr=False)
    rejoiner: Callable[[], bool] = field(default=lambda: False, repr=False)

    @property
    def on_loopback(self) -> bool:
        """Whether all of it is on this machine alone, reached without leaving it."""
        return not self.shared_machines and all(map(is_loopback, self.urls))

    def sample(self) -> ServerSample | None:
        """Read the server's CPU, memory, threads and descriptors now; None where that is impossible."""
        return self.sampler()

    def log_tail(self, n: int = 20) -> str:
        """Return the last `n` lines of the server's log, or an empty string where there is none."""
        return self.log_reader(n)

    def exit_status(self) -> ExitStatus | None:
        """Return how the server ended, or None while it runs or where that is unknown.

        A reader that has words alone ("exited with code 1") is read by them.
        """
        status = self.exit_reader()
        return ExitStatus.parse(status) if isinstance(status, str) else status

    def processes(self) -> frozenset[int] | None:
        """Return the ids of the server's processes that run now; None where they cannot be seen from here."""
        return self.process_reader()

    def rejoin(self) -> bool:
        """Wait until a server has answered a session again that somebody else starts again; as long as at first.

        False where none did, or where nobody would start it again.
        """
        return self.rejoiner()

    def proxy(self) -> ProxySnapshot | None:
        """Ask the proxy in front of several hosts how it has spread requests so far; None where there is none."""
        return self.proxy_reader()


class Target(Protocol):
    """What starts or finds a server to measure: a synchronous context manager around the server's life."""

    spec: str
    """The canonical target specification, options sorted, without secrets."""

    def __enter__(self) -> Endpoint:
        """Start or attach to the server and return once a real session was answered.

        Raises:
            TargetError: it did not start, or did not answer as OpenEnv within its deadline.
        """
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Stop whatever was started; an attached server is left alone.

        Raises:
            TargetError: something could not be stopped and may still run.
        """
        ...


LOG_LINES = 5
"""Lines of a host's log that are kept where it is in trouble."""


@dataclass(frozen=True, slots=True)
class HostEvent(Jsonable):
    """What befell a host: it `died` (`exit` is how), was taken `out` of the rotation (`text` is why), or is `back`.

    `at_s` is the moment as `time.monotonic()`, in seconds: the wall clock may be set meanwhile.
    """

    host: str
    kind: Literal["died", "out", "back"]
    at_s: float
    text: str = ""
    exit: ExitStatus | None = None


@dataclass(frozen=True, slots=True)
class HostSnapshot:
    """One host as the proxy sees it: requests sent to it so far, failed connections, and what is wrong.

    `trouble` holds the proxy's own health flags, "" where it is healthy; `log` is the end of its server's log.
    """

    host: str
    requests: int
    connect_failures: int = 0
    trouble: str = ""
    log: str = ""


@dataclass(frozen=True, slots=True)
class ProxySnapshot:
    """One look at a proxy; every number counts from its start. `overflows` are what its breakers refused."""

    name: str
    hosts: tuple[HostSnapshot, ...]
    overflows: Mapping[str, int] = field(default_factory=dict[str, int])
    events: tuple[HostEvent, ...] = ()
    rss_bytes: int | None = None
    cpu_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class UnhealthyHost(Jsonable):
    """A host with a problem at the end of a cell: the proxy's health flags, failed connections, the end of its log."""

    host: str
    trouble: str
    connect_failures: int = 0
    log: str = ""


@dataclass(frozen=True, slots=True)
class HostIncident(Jsonable):
    """What happened to a host during a cell, `at_s` seconds after the cell's start.

    `out_after_s` is how many seconds after its death the proxy took it out (None: it did not, or none died). `exit` is
    how it died; runs of version 0.1 have the sentence alone, in `text`.
    """

    host: str
    kind: Literal["died", "out", "back"]
    at_s: float
    text: str = ""
    out_after_s: float | None = None
    exit: ExitStatus | None = None

    @property
    def ending(self) -> ExitStatus | None:
        """How it died; None of one that did not."""
        return (self.exit or ExitStatus.parse(self.text)) if self.kind == "died" else None


@dataclass(frozen=True, slots=True)
class ProxyFacts(Jsonable):
    """What a proxy did during one repetition of a cell; `requests` per host, zeros included.

    `rss_bytes` is the proxy's own memory at the end, `cpu_seconds` what it used in between.
    """

    name: str
    requests: Mapping[str, int]
    overflows: Mapping[str, int] = field(default_factory=dict[str, int])
    troubles: tuple[UnhealthyHost, ...] = ()
    mishaps: tuple[HostIncident, ...] = ()
    rss_bytes: int | None = None
    cpu_seconds: float | None = None

    @property
    def hosts(self) -> int:
        """How many hosts got at least one request."""
        return sum(1 for count in self.requests.values() if count)

    @property
    def idle(self) -> tuple[str, ...]:
        """The hosts that got nothing."""
        return tuple(host for host, count in self.requests.items() if not count)


def proxy_facts_between(
    before: ProxySnapshot | None, after: ProxySnapshot | None, *, started_s: float, batch: int
) -> ProxyFacts | None:
    """Return what a proxy did for a cell of `batch` sessions between two looks at it; it began at this `monotonic()`.

    None where it could not be looked at twice. A host without requests is in trouble if there were sessions
    enough for every host.
    """
    if before is None or after is None:
        return None
    earlier = {host.host: host for host in before.hosts}
    requests: dict[str, int] = {}
    troubles: list[UnhealthyHost] = []
    for host in after.hosts:
        previous = earlier.get(host.host, HostSnapshot(host.host, 0))
        requests[host.host] = max(host.requests - previous.requests, 0)
        failures = max(host.connect_failures - previous.connect_failures, 0)
        idle = not requests[host.host] and batch >= len(after.hosts)
        if host.trouble or idle:
            troubles.append(UnhealthyHost(host.host, host.trouble, failures, host.log))
    overflows = {name: count - before.overflows.get(name, 0) for name, count in after.overflows.items()}
    cpu = (after.cpu_seconds, before.cpu_seconds)
    return ProxyFacts(
        name=after.name,
        requests=requests,
        overflows={name: count for name, count in overflows.items() if count > 0},
        troubles=tuple(troubles),
        mishaps=_incidents(after.events, started_s),
        rss_bytes=after.rss_bytes,
        cpu_seconds=max(cpu[0] - cpu[1], 0.0) if cpu[0] is not None and cpu[1] is not None else None,
    )


def _incidents(events: tuple[HostEvent, ...], started_s: float) -> tuple[HostIncident, ...]:
    """Return the events since a cell's start, a death together with the moment its host was taken out."""
    incidents: list[HostIncident] = []
    recent = sorted((event for event in events if event.at_s >= started_s), key=lambda event: event.at_s)
    dead = {event.host: event for event in recent if event.kind == "died"}
    for event in recent:
        at_s = event.at_s - started_s
        death = dead.get(event.host)
        if event.kind == "died":
            outs = (later for later in recent if later.host == event.host and later.kind == "out")
            out = next(outs, None)
            after = max(out.at_s - event.at_s, 0.0) if out else None
            incidents.append(HostIncident(event.host, "died", at_s, event.text, after, event.exit))
        elif death is None:
            incidents.append(HostIncident(event.host, event.kind, at_s, event.text))
    return tuple(incidents)
