"""One repetition of a cell as it is stored: the columns of the row of a session, and the facts all rows share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

from pytest_openenv_scale.config.plan import Cell
from pytest_openenv_scale.core.endpoint import ExitStatus, ProxyFacts, ServerSample, SessionSettings
from pytest_openenv_scale.core.serialization import Count, FileName, Jsonable, Ordinal, UtcTime
from pytest_openenv_scale.core.text import Secrets

TRANSIENT_FINDINGS = frozenset({"cpu", "loop_lag", "process_died", "http_lag"})
"""Kinds of findings that the same repetition may be without when it is measured again on a calmer machine."""

Int32 = Annotated[int, "int32"]
"""A whole number that is stored in 32 bits; any other takes 64."""


MAX_SAMPLES = 480
"""Most samples of a server that are kept of one repetition of a cell."""

NOT_STARTED = "not_started"
"""The type of error of a session that never began: enough others had failed before, or time was up."""

CUT_OFF = "cut_off"
"""The kind of finding of a repetition that a killed process left unfinished."""

SERVICE_RESTART = "1012"
"""The code with which a server closes WebSockets because it restarts (uvicorn: or stops)."""


class SessionRow(NamedTuple):
    """One session as its client saw it; seconds as floats, None where a phase was not reached.

    Each field is a column of what a run keeps, of the type written here; `started_at` is its `timestamp`.

    Times ending in `_s` are offsets from the start of the cell. `queue_latency` runs from the moment the
    session was due to the start of its socket, `connect_latency` to the finished handshake,
    `reset_latency` over the first reset, `hold_latency` while the rest of the batch came up,
    `step_latency` sums `step_latencies`, `resets` sums the resets made after `done`, and
    `total_latency` is queue + connect + reset + steps + resets. `late_s` is the most that a standstill of its load
    process kept one of its messages from being sent, where that is more than 0.2 s.

    `slot` is the number of the slot that played the session in a steady state. `step_pauses` are, for each step, the
    seconds from the end of the step before it (of the reset, for the first) to its sending, where sessions think.
    `judged` is false where no latency counts the session: it began in the ramp, ran on when time was up (how it ended
    counts all the same), or never began (`error_type` not_started).
    """

    request_id: int
    process: Int32
    started_at: float
    due_s: float
    start_s: float | None = None
    connected_s: float | None = None
    reset_done_s: float | None = None
    closed_s: float | None = None
    queue_latency: float | None = None
    connect_latency: float | None = None
    reset_latency: float | None = None
    hold_latency: float | None = None
    step_latency: float | None = None
    step_latencies: Sequence[float] = ()
    resets: float | None = None
    total_latency: float | None = None
    waited_seconds: float | None = None
    steps_done: Int32 = 0
    pid: int | None = None
    session_hash: str | None = None
    host_url: str | None = None
    success: bool = False
    error_phase: str | None = None
    error_type: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    late_s: float | None = None
    slot: Int32 | None = None
    step_pauses: Sequence[float] = ()
    judged: bool = True

    def without(self, secrets: Secrets) -> SessionRow:
        """Return the row with no secret in any text that the server wrote."""
        texts = {name: getattr(self, name) for name in _WRITTEN_BY_SERVERS}
        return self._replace(**{name: secrets.hide(text) for name, text in texts.items() if text is not None})


_WRITTEN_BY_SERVERS = ("session_hash", "host_url", "error_code", "error_message")


@dataclass(frozen=True, slots=True)
class ClientFinding(Jsonable):
    """Something about the client that makes a cell inconclusive; http_lag makes it so for latencies only.

    `kind` is cpu, loop_lag, descriptors, ports, process_died, http_lag, hold or cut_off; `message` is one line with
    figures.
    """

    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class AnsweredErrors(Jsonable):
    """Sessions of a cell that were answered with an observation that is an error: how many, and the first one's words.

    `alone` sessions with the same reset data and actions played alone so far, of which `errors_alone` got errors too.
    `under_load` tells that the errors come under load only, beyond chance: these sessions then failed. Otherwise they
    are part of the game, or too few to tell.
    """

    count: int
    words: str
    alone: int
    errors_alone: int
    under_load: bool = False


@dataclass(frozen=True, slots=True)
class ServerSamples(Jsonable):
    """The server's processes before and after a cell, and the largest value of each figure in between.

    `rising` holds a sample for each number of open sessions that none before had in the cell, in ascending order.
    `held_before` is the most sessions that were open at once before it, as far as that is known.
    """

    first: ServerSample | None = None
    last: ServerSample | None = None
    peak: ServerSample | None = None
    rising: tuple[ServerSample, ...] = ()
    held_before: int = 0


@dataclass(frozen=True, slots=True)
class CellMeta(Jsonable):
    """Everything about one repetition of a cell that is not in its rows; stored in the part's Parquet schema.

    `wall_s` is seconds, `started_at` UTC. `cores`, `hosts`, `hardware`, `limits` and `session_settings` are the
    endpoint's.
    `server_exit` is how the server ended if it died (a sentence in runs of version 0.1); `log_tail` is kept only where
    something failed.
    `client` holds the load generator's own figures (CPU, loop lag, descriptors), `proxy` what a proxy in
    front of several hosts counted. `ended_pids` are processes of the server that ended meanwhile, None where they
    cannot be seen from here; `listens_again` says that a server answered after it had ended or said that it restarts.
    `log_lines` is how many lines of `log_tail` are of this cell, None where that is unknown.
    `notes` say what was unusual without keeping the cell from being judged.
    `attempt` counts from 1 how often the repetition was measured, as the client was at fault the times before.
    `samples` are of the server while a steady state lasted, at most `MAX_SAMPLES` and evenly apart; their `at_s` is in
    seconds from the start of the cell.
    """

    run_id: FileName
    sweep_id: str
    cell: Cell
    repetition: Ordinal
    wall_s: float
    started_at: UtcTime
    hardware: str | None = None
    cores: Count | None = None
    hosts: Count | None = None
    limits: Mapping[str, str | int] = field(default_factory=dict[str, str | int])
    client: Mapping[str, Any] = field(default_factory=dict[str, Any])
    findings: tuple[ClientFinding, ...] = ()
    server: ServerSamples = field(default_factory=ServerSamples)
    server_exit: ExitStatus | str | None = None
    log_tail: str | None = None
    notes: tuple[str, ...] = ()
    proxy: ProxyFacts | None = None
    answered_errors: AnsweredErrors | None = None
    session_settings: SessionSettings | None = None
    attempt: Ordinal = 1
    ended_pids: tuple[int, ...] | None = None
    listens_again: bool = False
    log_lines: int | None = None
    samples: tuple[ServerSample, ...] = ()

    @property
    def cut_off(self) -> bool:
        """Whether the repetition was left unfinished: how its other sessions would have gone is unknown."""
        return any(finding.kind == CUT_OFF for finding in self.findings)

    @property
    def ending(self) -> ExitStatus | None:
        """How the server ended; None while it runs or where that is unknown."""
        return ExitStatus.parse(self.server_exit) if isinstance(self.server_exit, str) else self.server_exit
