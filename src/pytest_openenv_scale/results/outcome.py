"""Verdicts, outcomes of checks and the warm-up, as values that `verdict`, `checks` and `engine` make."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Literal

from pytest_openenv_scale.config.limits import Limit, Slo
from pytest_openenv_scale.config.plan import Curve
from pytest_openenv_scale.config.search import SearchPlan
from pytest_openenv_scale.core.endpoint import ExitStatus, HostIncident
from pytest_openenv_scale.core.errors import RunError
from pytest_openenv_scale.core.files import json_bytes, replacing
from pytest_openenv_scale.core.serialization import Jsonable, JsonError, UtcTime


@dataclass(frozen=True, slots=True)
class Sample(Jsonable):
    """The action that was sent first and the start of its answer, as JSON, cut off, without secrets.

    `reset` is what the first reset was answered. They stay on the machine that measured: nothing of them is pushed.
    """

    action: str | None = None
    answer: str | None = None
    reset: str | None = None


@dataclass(frozen=True, slots=True)
class WarmUp(Jsonable):
    """One session of a mode that played alone: its answers, counted.

    `reset_error` and `step_error` are the words of the first answers that are observations and errors; of its `steps`,
    `step_errors` were answered so, and `unsuccessful_steps` with `success: false`. `done_on_reset` and
    `first_done_step` (from 1) tell when `done` came. `wait_s` is what each step was asked to wait, `longest_step_s` the
    longest that one took, in seconds. `made_action` tells that the action was made from `/schema` and may mean nothing
    to the environment, `guessed_action` that there was no `/schema`, so that it is a guess. `same_episode` tells
    whether its steps belong to the episode of its reset, as a WebSocket's do; None where nothing shows it over HTTP.
    """

    mode: str
    steps: int = 0
    step_errors: int = 0
    reset_error: str | None = None
    step_error: str | None = None
    unsuccessful_steps: int = 0
    done_on_reset: bool = False
    first_done_step: int | None = None
    wait_s: float | None = None
    longest_step_s: float | None = None
    made_action: bool = False
    guessed_action: bool = False
    sample: Sample | None = None
    same_episode: bool | None = None

    @property
    def played(self) -> bool:
        """Whether it did more than get errors: its reset and one step at least were answered otherwise."""
        return self.reset_error is None and (not self.steps or self.step_errors < self.steps)

    @property
    def single_turn(self) -> bool:
        """Whether an episode is over with its first step."""
        return self.first_done_step == 1

    @property
    def ignores_wait(self) -> bool:
        """Whether every step was answered before the wait it was asked for could be over."""
        if not self.wait_s or self.longest_step_s is None:
            return False
        return self.longest_step_s < _WAITED_SHARE * self.wait_s


_WAITED_SHARE = 0.9
"""Share of a wait that a step has to take for the environment to count as one that waits."""


class Outcome(StrEnum):
    """What a measurement says about a limit; `inconclusive` is never a silent pass."""

    MET = "met"
    MISSED = "missed"
    INCONCLUSIVE = "inconclusive"


def combine_outcomes(outcomes: Iterable[Outcome]) -> Outcome:
    """Combine outcomes: missed if any is missed, met if all are met and there is one, else inconclusive."""
    distinct = set(outcomes)
    if Outcome.MISSED in distinct:
        return Outcome.MISSED
    return Outcome.MET if distinct == {Outcome.MET} else Outcome.INCONCLUSIVE


@dataclass(frozen=True, slots=True)
class ErrorCount(Jsonable):
    """One way sessions failed: how many of them in which `phase`, with the first `message`.

    `type` and `code` are those of the rows.
    """

    phase: str | None
    type: str | None
    code: str | None
    count: int
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Breach(Jsonable):
    """A limit a repetition of a cell definitely broke; `observed` and `allowed` are in the limit's unit.

    `limit` is a name of `LIMITS`, or "server" for a server that died (no observed and allowed values).
    """

    batch: int
    repetition: int
    limit: str
    phase: str | None = None
    statistic: str | None = None
    observed: float | None = None
    allowed: float | None = None


@dataclass(frozen=True, slots=True)
class Reason(Jsonable):
    """One thing to be said of a repetition of a cell, as values; what is in doubt because of it is `passed`'s matter.

    | `kind` | `cause` | what it tells |
    | --- | --- | --- |
    | client | a finding's kind | the client was the limit: `words` are the finding's |
    | client | client_limit | `figures["sessions"]` could not be started; `words` and `figures["code"]` of the system |
    | hold | hold, not_all_open | not all sessions were open at once; `figures["open"]` were |
    | cut_off | cut_off | the run ended before the repetition did: `words` tell how many sessions are kept |
    | no_data | | no session was measured |
    | unmeasurable | no_wait, no_phase, none_ended, not_steady, unseen | `limit` cannot be judged |
    | queue | | `limit` is broken by the client's own queue alone: `observed`, `allowed`, `unqueued` in seconds |
    | late | | `limit` is broken, perhaps only as HTTP answers were seen late: `observed`, `allowed`, at most `late` s |
    | hosts | died, out, back, all_failed | what befell a host, or that all failed sessions were on the host `words` |
    | hosts | unknown | `limit` cannot be judged, as the environment does not tell its host |
    | clock | | the wall clock was set by `figures["moved"]` seconds, so that `limit`, if any, cannot be judged |
    | clock | | `figures["unstamped"]` answers were timed by their reading, as no stamp could be believed |
    | drift | latency, memory, threads, descriptors, failures | it rose: figures of `Drift`, `per_hour`, `length` in s |
    | pongs | ended, late | `figures["missed"]` pings had no answer in `figures["after"]` seconds |
    | answers | game, under_load | sessions got errors as answers, `words` the first; `figures` of `AnsweredErrors` |
    | server_died | | the server ended |
    | stopped_early | slots | only `figures["begun"]` of `figures["batch"]` slots began before time was up |
    | stopped_early | | only `figures["begun"]` of `figures["batch"]` sessions began, as `figures["failed"]` failed |
    | incomplete | | `figures["measured"]` repetitions instead of `repetitions` |
    | note | | `words` that were noted when the cell was measured |
    | set_aside | a finding's kind | attempt `figures["attempt"]` does not count; other `figures` are of `ClientStats` |

    `repetition` is one of `repetitions`, None where it is all of them. `detail` may hold several lines more, such as
    the end of a log.
    """

    kind: str
    batch: int
    repetition: int | None = None
    repetitions: int = 1
    cause: str = ""
    limit: Limit | None = None
    figures: Mapping[str, float | int | str | None] = field(default_factory=dict[str, float | int | str | None])
    words: str | None = None
    detail: str | None = None
    incident: HostIncident | None = None
    exit: ExitStatus | None = None


@dataclass(frozen=True, slots=True)
class CellVerdict(Jsonable):
    """One batch over all its repetitions; `passed` is None where that cannot be said (see `reasons`).

    In a search a batch also passed that failed in so few of many repetitions that it holds all the same.

    `by_repetition` is the same of each repetition that was measured, in their order.
    """

    batch: int
    passed: bool | None
    breaches: tuple[Breach, ...] = ()
    reasons: tuple[Reason, ...] = ()
    by_repetition: tuple[bool | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Step(Jsonable):
    """One thing to change on a server: a setting of some `kind`, its `name`, the `value` it gets, and `where`.

    `kind` is `object` (what all sessions share, made once per session instead), `attribute` (of the environment's
    class), `argument` (of the call that makes the app), `variable` (of the server's environment), `key` (of the
    target), `option` (of the server's command), `ulimit`, `breaker` (of the proxy), or `ask`: `value` is a command that
    asks about `name` afterwards. A step is not `sure` where it is needed only if it is that setting which binds.
    """

    kind: Literal["object", "attribute", "argument", "variable", "key", "option", "ulimit", "breaker", "ask"]
    name: str
    value: int | str | bool
    where: str | None = None
    sure: bool = True


@dataclass(frozen=True, slots=True)
class Refusal(Jsonable):
    """Why `count` sessions of a `batch` did not come about or did not go on, and the setting to change.

    `cause` is one word for programs: capacity, one_session, limit_concurrency, descriptors, worker_killed,
    server_died, restarted, host_lost, proxy, platform_connections, platform_rate, platform_stage, http_unreachable,
    http_NNN, redirect, closed_NNNN, cut, not_listening, environment or unnamed (docs/causes.md). `figures` are its
    evidence and what the remedy is sized by, among them `needed`, the sessions that the server should hold. `words` are
    those of the server, its log or the platform, `errors` the failures where those are all that is known, `incidents`
    what befell hosts, `exit` how the server ended.
    `steps` are the settings to change, in order; none where no setting would help.
    """

    cause: str
    count: int
    batch: int
    figures: Mapping[str, float | int | str | bool | None] = field(
        default_factory=dict[str, float | int | str | bool | None]
    )
    words: str | None = None
    errors: tuple[ErrorCount, ...] = ()
    incidents: tuple[HostIncident, ...] = ()
    exit: ExitStatus | None = None
    steps: tuple[Step, ...] = ()

    @property
    def is_cap(self) -> bool:
        """Whether a number refused that somebody set: it says nothing of what the server can bear."""
        return self.cause in _CAPS


_CAPS = frozenset(
    {"capacity", "one_session", "limit_concurrency", "descriptors", "proxy", "platform_connections", "platform_rate"}
)


@dataclass(frozen=True, slots=True)
class LimitVerdict(Jsonable):
    """What became of one limit of a curve, or, where `limit` is None, of the curve without one.

    `cause` tells what decided: reached or broken (with `figures`), open (larger batches are in doubt or not measured),
    late (HTTP answers were seen late, which slows sessions down), did_not_play (sessions got errors only, so that
    nothing was measured), unknown_cores, no_passing_cell, small_batches, every_cell, nothing_measured, server_died,
    ended_early, no_limit, some_cell (the limits only define max batch), none_known, none_passes. A cost per session or
    step (`figures` are those of `Cost`) is also few_points, or unseen where the server's processes cannot be seen.
    """

    limit: str | None
    outcome: Outcome
    cause: str
    figures: Mapping[str, float | int | None] = field(default_factory=dict[str, float | int | None])


Stopped = Literal["two_failing", "ended_early", "budget", "max_sessions"]
"""Why batches of a curve were not measured."""

StopReason = Literal[
    "precision",
    "slope",
    "top",
    "bottom",
    "holds",
    "fails",
    "doubt",
    "unsteady",
    "server_died",
    "budget",
    "max_sessions",
    "drift",
    "interrupted",
    "running",
]
"""Why a search ended.

What passes and what fails are as near to each other as was asked for (precision), or repetitions differ in between
(slope); the largest batch passes (top), the smallest does not (bottom); the one batch that is needed holds or fails.
The rest leaves it open: batches in doubt, a server that answers differently every time, changes meanwhile or died, no
time or no sessions left, an interruption; or it goes on (running).
"""


@dataclass(frozen=True, slots=True)
class Probe(Jsonable):
    """One repetition that a search asked for: its batch, and whether it passed; None where that cannot be said."""

    batch: int
    passed: bool | None
    repetition: int = 1


@dataclass(frozen=True, slots=True)
class SearchOutcome(Jsonable):
    """What a search asked for, in order, and what it came to besides the numbers of its curve.

    `sessions` is how many were begun, or slots of steady states. `shape` is cliff where passing ends at once and slope
    where some batch at the edge passed in a part of its repetitions. `exceptions` are batches below max batch that
    failed once, or above the smallest failing one that passed: the curve is not monotonic there. `drift` says that what
    the server holds fell or rose meanwhile.
    `grown_bytes` is by how much its memory grew per session though no more were open than before; None where it did
    not.
    """

    plan: SearchPlan
    stop_reason: StopReason
    probes: tuple[Probe, ...]
    sessions: int
    shape: Literal["cliff", "slope"] | None = None
    exceptions: tuple[int, ...] = ()
    drift: Literal["fell", "rose"] | None = None
    grown_bytes: float | None = None

    def tally(self, batch: int) -> tuple[int, int]:
        """Return how many repetitions of a batch passed, and how many there were that could be judged."""
        judged = [probe.passed for probe in self.probes if probe.batch == batch and probe.passed is not None]
        return sum(judged), len(judged)


@dataclass(frozen=True, slots=True)
class Cost(Jsonable):
    """What one more session, or step, costs a server: a slope over so many `points`, each another number of them.

    `low` and `high` are the ends of its interval, which covers it with this `confidence`. `value` and `low` are None
    where the points are too few for a slope; `high` is then what it cannot exceed, if that is known.
    """

    points: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class ServerCost(Jsonable):
    """What sessions and steps of a curve cost the server, over all of its processes; None where those cannot be seen.

    `memory_per_session` is in bytes, `threads_per_session` and `descriptors_per_session` are counts, each by the number
    of sessions open at once. `cpu_per_step` is in seconds of CPU, a step's share of connecting and resets included.
    """

    memory_per_session: Cost | None = None
    threads_per_session: Cost | None = None
    descriptors_per_session: Cost | None = None
    cpu_per_step: Cost | None = None


@dataclass(frozen=True, slots=True)
class CurveVerdict(Jsonable):
    """The verdict on a curve: that of its limits together.

    `max_batch` is the largest batch that passes in every repetition, all smaller ones of the curve passing
    too; `feasible_max` is the same number, `infeasible_min` the smallest batch that definitely failed, and
    `max_batches` are the max batch of each repetition alone. In a `search` max batch passed as often as was asked for,
    or in so many of more repetitions that it is as sure, and most repetitions of `infeasible_min` failed. `stopped`
    says why batches of the curve were not measured: `two_failing` in a row, it `ended_early`, or `budget` or
    `max_sessions` did not allow for more. `notes` are the endpoint's; `warm_up` is what a session was answered that
    played alone. `cost` is what sessions cost the server.
    """

    curve: Curve
    outcome: Outcome
    max_batch: int | None
    max_batch_per_core: float | None
    cells: tuple[CellVerdict, ...]
    first_breach: Breach | None
    feasible_max: int | None
    infeasible_min: int | None
    refused: tuple[Refusal, ...]
    limits: tuple[LimitVerdict, ...]
    stopped: Stopped | None
    slo: Slo
    repetitions: int
    max_batches: tuple[int | None, ...] = ()
    cores: int | None = None
    notes: tuple[str, ...] = ()
    warm_up: WarmUp | None = None
    search: SearchOutcome | None = None
    cost: ServerCost = field(default_factory=ServerCost)

    @property
    def decisive(self) -> tuple[LimitVerdict, ...]:
        """The limits that make the outcome what it is."""
        return tuple(limit for limit in self.limits if limit.outcome is self.outcome)

    @property
    def cap(self) -> Refusal | None:
        """The set number that refused sessions up to the smallest batch that failed; None where none did."""
        caps = (refusal for refusal in self.refused if refusal.is_cap)
        return next((cap for cap in caps if self.infeasible_min is None or cap.batch <= self.infeasible_min), None)

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """What is to be said of its cells."""
        return tuple(reason for cell in self.cells for reason in cell.reasons)

    @property
    def unmeasured(self) -> tuple[int, ...]:
        """The batches of the curve that were not measured."""
        measured = {cell.batch for cell in self.cells}
        return tuple(batch for batch in self.curve.batches if batch not in measured)

    def cell(self, batch: int) -> CellVerdict | None:
        """Return the verdict on one batch, or None where it was not measured."""
        return next((cell for cell in self.cells if cell.batch == batch), None)


CHECKS = "checks"
"""The folder of a run that holds one JSON file per check."""


class CheckOutcome(StrEnum):
    """What a check says; `skipped` is what a server that lacks the capability gets, with the reason."""

    MET = "met"
    MISSED = "missed"
    INCONCLUSIVE = "inconclusive"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class TranscriptLine(Jsonable):
    """One message: `at_s` in seconds since the check began, `by` client or server, long texts cut."""

    at_s: float
    by: str
    text: str


@dataclass(frozen=True, slots=True)
class Transcript(Jsonable):
    """The messages one session sent and received; `title` says which session it is and why it is shown."""

    title: str
    said: tuple[TranscriptLine, ...]


@dataclass(frozen=True, slots=True)
class CheckResult(Jsonable):
    """The verdict of one check, in one line (`headline`), with what to do about it (`remedy`).

    `figures` are measured: names end in their unit (`_s` seconds, `_bytes`, `_ratio` fractions, else counts).
    `details` are further sentences, `series` lists of figures over time. `exit` is how the server ended meanwhile.
    `unmet` is what the check needs and there was not, so that it was not asked: "steps" or "sessions", where a session
    alone could not do that, or "time".
    `steps` are the settings that the remedy changes, in order.
    """

    outcome: CheckOutcome
    headline: str
    remedy: str | None = None
    details: tuple[str, ...] = ()
    figures: Mapping[str, float | int | str | bool | None] = field(
        default_factory=dict[str, float | int | str | bool | None]
    )
    series: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict[str, tuple[float | None, ...]])
    transcripts: tuple[Transcript, ...] = ()
    exit: ExitStatus | None = None
    steps: tuple[Step, ...] = ()
    unmet: str | None = None

    @property
    def not_asked(self) -> bool:
        """Whether it was left out as an earlier check had found that sessions do not play, or as no time was left."""
        return self.outcome is CheckOutcome.SKIPPED and self.unmet is not None


@dataclass(frozen=True, slots=True)
class CheckRecord(Jsonable):
    """A result as a run keeps it: which test on which server found it, when, and how to see it again.

    `subject` is the part of the suite it belongs to (isolation, capacity…), `took_s` seconds; `notes` tell how
    the server was reached, where not straight.
    """

    test: str
    target: str
    infrastructure: str
    subject: str
    result: CheckResult
    started_at: UtcTime
    took_s: float
    rerun: str | None = None
    notes: tuple[str, ...] = ()


def combine_with_checks(sweeps: Outcome | None, checks: Iterable[CheckRecord]) -> Outcome:
    """Combine the outcome of the sweeps (None without any) with those of checks; skipped ones do not count."""
    outcomes = [Outcome(check.result.outcome) for check in checks if check.result.outcome is not CheckOutcome.SKIPPED]
    return combine_outcomes(outcomes if sweeps is None else [*outcomes, sweeps])


def write_check(run: Path, record: CheckRecord) -> Path:
    """Write the file of a check into the directory of a run, in one piece or not at all; return its path.

    Raises:
        RunError: it cannot be written.
    """
    name = f"{_slug(record.test)}-{sha256(f'{record.test} {record.target}'.encode()).hexdigest()[:8]}.json"
    path = run / CHECKS / name
    try:
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as file:
            file.write(json_bytes(record.to_json()))
    except OSError as error:
        raise RunError(f"a check of the run cannot be written: {path}: {error.strerror}") from None
    return path


def read_checks(run: Path, problems: list[str]) -> tuple[CheckRecord, ...]:
    """Read the checks of a run in the order they began; files that cannot be read are reported in `problems`."""
    records: list[CheckRecord] = []
    for path in sorted((run / CHECKS).glob("[!.]*.json")):
        try:
            records.append(CheckRecord.read_json(path.read_bytes()))
        except (OSError, JsonError) as error:
            reason = str(error) if isinstance(error, JsonError) else type(error).__name__
            problems.append(f"the check {CHECKS}/{path.name} cannot be read: {reason}")
    return tuple(sorted(records, key=lambda record: record.started_at))


def first_unmet(run: Path, target: str) -> CheckRecord | None:
    """Return the check of a run that first found that sessions of a target do not play; None where none did."""
    checks = read_checks(run, [])
    return next((check for check in checks if check.target == target and _tells_unmet(check.result)), None)


def _tells_unmet(result: CheckResult) -> bool:
    return result.unmet is not None and not result.not_asked


def skip_unmet(result: CheckResult, reason: str) -> CheckResult:
    """Return the result of a check that is skipped, as an earlier check already failed for the same cause."""
    return CheckResult(CheckOutcome.SKIPPED, f"not asked: {reason}", unmet=result.unmet)


def _slug(test: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", test.rpartition("::")[2]).strip("-")[:60]
