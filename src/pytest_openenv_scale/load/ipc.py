"""The messages between the parent and its load processes; pickled over a pipe, secrets included, nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from pytest_openenv_scale.config.plan import Cell
from pytest_openenv_scale.config.think import ThinkTime
from pytest_openenv_scale.config.workload import Workload
from pytest_openenv_scale.core.endpoint import DIRECT, Network
from pytest_openenv_scale.results.cell import SessionRow


@dataclass(frozen=True, slots=True)
class CellRequest:
    """One repetition of a cell: where, what, and how long an answer may take (seconds)."""

    cell: Cell
    repetition: int
    urls: tuple[str, ...]
    headers: Mapping[str, str] = field(repr=False)
    workload: Workload
    timeout_s: float
    seed: int = 0
    until_done: bool = False
    http_connections: str = "session"
    ping_s: float | None = None
    """After how many seconds a WebSocket session pings the server, again and again; None: never."""
    first_session: int = 0
    """The number of the first session; others follow. What a session sends depends on its number."""
    keep_messages: bool = False
    """Whether the messages of session 0 come back with the rows, for a look at what was said."""
    network: Network = DIRECT
    """How the URLs are reached."""
    think: ThinkTime | None = None
    """How long a session waits after a reply before its next step."""
    most_failures: int | None = None
    """With more failed sessions no other begins, as the cell has failed for certain; None: all begin."""
    episode_steps: int | None = None
    """After so many steps a WebSocket session of a steady state is reset, as after `done`, and plays on until time is
    up; None: it takes its steps, also where time is up before."""


class AnsweredError(NamedTuple):
    """An observation that is an error: the phase it answered (reset or step), and its words (`client.messages`)."""

    phase: str
    words: str


@dataclass(frozen=True, slots=True)
class SessionMessages:
    """What a session sent, and what it was answered: the phase of each answer, and the answer as JSON.

    `actions` holds the message of each step, the last one for all that follow.
    """

    reset: bytes
    actions: tuple[bytes, ...]
    answers: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class SetImportPath:
    """Parent to process: the import path, for actions made by a callable."""

    path: list[str]


@dataclass(frozen=True, slots=True)
class Prepare:
    """Parent to process: make the process's share of the next cell ready, its sessions connecting from `sources`.

    Without `sources` the system chooses the address; they exist for WebSocket sessions only.
    """

    request: CellRequest
    process: int
    processes: int
    sources: tuple[str, ...] = ()

    @property
    def sessions(self) -> range:
        """The numbers of the sessions this process runs, counted over the whole batch."""
        first = self.request.first_session
        return range(first + self.process, first + self.request.cell.batch, self.processes)

    def route(self, number: int) -> tuple[str, str | None]:
        """Return the URL of a session and the address it connects from; each URL sees all sources alike."""
        urls, sources = self.request.urls, self.sources
        turn = number // self.processes // len(urls)
        return urls[number % len(urls)], sources[turn % len(sources)] if sources else None

    @property
    def routes(self) -> int:
        """After how many sessions of this process `route` repeats itself."""
        return len(self.request.urls) * max(1, len(self.sources))


@dataclass(frozen=True, slots=True)
class Ready:
    """Process to parent: the share is prepared and waits for the common start."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Process to parent: the cell cannot be run, and why in one line."""

    reason: str


@dataclass(frozen=True, slots=True)
class Start:
    """Parent to process: the cell begins at this moment, `time.perf_counter()` and `time.time()` in seconds."""

    at: float
    wall_clock: float


@dataclass(frozen=True, slots=True)
class BatchReady:
    """Process to parent: every session of the share is reset and holds, or has failed.

    `at` is when the last answer to a reset arrived (`time.perf_counter()`), however late it was read; None without any.
    """

    progress: ShareProgress
    at: float | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """Parent to process: the whole batch is ready since `at` (None: since now), the held sessions may step."""

    at: float | None = None


@dataclass(frozen=True, slots=True)
class Halt:
    """Parent to process: no other session begins, as so many had failed."""

    failed: int


@dataclass(frozen=True, slots=True)
class ShareProgress:
    """Process to parent, twice a second: how many sessions are open, finished, and failed, and their steps so far.

    Those the client could not start are not among the `failed`, but among the `finished`.
    """

    open: int
    finished: int
    failed: int
    steps: int = 0


@dataclass(frozen=True, slots=True)
class RowBlock:
    """Process to parent: sessions that have ended, while others of the share play on.

    `answered_errors` holds, by the number of a session, what it was answered that is an error.
    """

    rows: Sequence[SessionRow]
    answered_errors: Mapping[int, AnsweredError]

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel by columns: thousands of rows cost a third of what they do one by one."""
        return _block_of_columns, (list(zip(*self.rows, strict=True)), self.answered_errors)


def _block_of_columns(columns: list[tuple[Any, ...]], answered_errors: Mapping[int, AnsweredError]) -> RowBlock:
    return RowBlock(_rows_of(columns), answered_errors)


def _rows_of(columns: list[tuple[Any, ...]]) -> list[SessionRow]:
    return list(map(SessionRow._make, zip(*columns, strict=True)))


@dataclass(frozen=True, slots=True)
class ShareResult:
    """Process to parent: the cell is over; CPU and lags in seconds, `rows` are those that did not leave before.

    `read_lag_p99_s` is how late answers were read (they carry the kernel's time, so that this is no latency),
    `loop_lag_max_s` the longest the event loop kept a timer waiting. `answer_lag_p50_s` and `answer_lag_p99_s` are
    how late HTTP answers were seen, which is in their latencies, `answer_lag_max_s` is the latest, and
    `session_lag_max_s` the largest sum over a session; None in ws mode. `starved_s` is how long the
    process was ready to run and had no core. `clock_moved_s` is by how much the wall clock was set during the share,
    `impossible_arrivals` how many reads no stamp told the time of, both 0 in http mode, which does not use it.
    `missed_pongs` counts pings that were unanswered when the next was due. `answered_errors` holds, by the number of a
    session of `rows`, what it was answered that is an error; `messages` are session 0's where they are kept.
    `function_s` is how long a user's function worked that makes actions of observations. `late_sessions` had a message
    that a standstill of the process kept from being sent; None in http mode, where no moment is known for each message.
    `send_lag_p50_s` and `send_lag_p99_s` are how late steps were sent whose think time was over; None without any.
    """

    rows: list[SessionRow]
    wall_s: float
    cpu_s: float
    read_lag_p99_s: float
    loop_lag_max_s: float
    rss_bytes: int
    answer_lag_p50_s: float | None = None
    answer_lag_p99_s: float | None = None
    answer_lag_max_s: float | None = None
    session_lag_max_s: float | None = None
    starved_s: float = 0.0
    clock_moved_s: float = 0.0
    impossible_arrivals: int = 0
    missed_pongs: int = 0
    answered_errors: Mapping[int, AnsweredError] = field(default_factory=dict[int, "AnsweredError"])
    messages: SessionMessages | None = None
    function_s: float = 0.0
    late_sessions: int | None = None
    send_lag_p50_s: float | None = None
    send_lag_p99_s: float | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel by columns, as a `RowBlock` does."""
        return _from_columns, (
            list(zip(*self.rows, strict=True)),
            *(getattr(self, name) for name in _FIELDS_BESIDES_ROWS),
        )


_FIELDS_BESIDES_ROWS = tuple(field.name for field in fields(ShareResult))[1:]


def _from_columns(columns: list[tuple[Any, ...]], *figures: Any) -> ShareResult:
    return ShareResult(_rows_of(columns), *figures)
