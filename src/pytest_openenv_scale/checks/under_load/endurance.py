"""Endurance: sessions that play on and on get the same service, and the server keeps its size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytest_openenv_scale.checks.resources import Drift, drift
from pytest_openenv_scale.checks.subject import Subject
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.load.client_health import MAX_BUSY_SHARE
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult, Transcript

from .soak import Soak, Window, soak

WARM_UP = 0.2
"""The share of a soak that is left out of every slope: caches, pools and allocators find their size in it."""

LATENCY_RATIO, LATENCY_LEAST_S = 0.5, 0.005
"""A median latency that rises over the soak by this share of itself and by this many seconds is a drift."""

MEMORY_RATIO, MEMORY_LEAST_BYTES = 0.1, 16 * 1024**2
"""Memory that grows over the soak by this share of itself and by this many bytes is a drift."""

PER_STEP_BYTES, PER_STEP_LEAST_BYTES = 1000.0, 4 * 1024**2
"""So are this many bytes per step, from this many in all: less is lost among what allocators do."""

COUNT_RATIO, COUNT_LEAST = 0.2, 20
"""Threads or descriptors that grow over the soak by this share of themselves and by this many are a drift."""

ERROR_RATIO, FEWEST_ERRORS = 0.01, 5
"""Errors that come with time: this share of all steps more than in the warm-up, and this many."""

OTHERS_CORES = 0.5
"""Cores that others on this machine used more at the end than at the start, from which latency shows them instead."""

_OUTCOME = CheckOutcome


@dataclass(frozen=True, slots=True)
class _TrendFinding:
    outcome: CheckOutcome
    said: str
    remedy: str | None = None
    shown: Transcript | None = None


async def soaked(subject: Subject) -> CheckResult:
    """Play for `subject.soak_s` and judge, by their slopes, latency, memory, threads, descriptors and errors."""
    if subject.soak_s <= 0:
        return CheckResult(_OUTCOME.SKIPPED, "--openenv-soak 0: the endurance check was not asked for")
    return judge(await soak(subject))


def judge(found: Soak) -> CheckResult:
    """Judge a soak that is over."""
    if not found.sessions:
        return CheckResult(_OUTCOME.INCONCLUSIVE, "no session could be opened that might have played on")
    judged = _Judged(found)
    findings = [
        *_lost(found),
        *_errors(found),
        *judged.memory_findings(),
        *judged.count_findings("threads", "thread", judged.threads),
        *judged.count_findings("descriptors", "descriptor", judged.descriptors),
        *judged.latency_findings(),
    ]
    findings.sort(key=lambda finding: finding.outcome is not _OUTCOME.MISSED)
    played = judged.sentence()
    if not findings:
        return CheckResult(
            _OUTCOME.MET, played, details=judged.remarks(), figures=judged.figures(), series=_series(found.windows)
        )
    worst = findings[0]
    return CheckResult(
        worst.outcome,
        worst.said,
        remedy=worst.remedy,
        details=(played, *(finding.said for finding in findings[1:]), *judged.remarks()),
        figures=judged.figures(),
        series=_series(found.windows),
        transcripts=tuple(finding.shown for finding in findings if finding.shown is not None)[:2],
    )


def _lost(found: Soak) -> list[_TrendFinding]:
    if not found.lost:
        return []
    first, count = found.lost[0], len(found.lost)
    which = f"all {count} sessions" if count == found.sessions > 1 else f"{count} of {found.sessions} sessions"
    said = f"{which} were lost while they played, the first after {first.at_s:.1f} s: {first.answer}"
    remedy = "look into the server's log at that moment: a crash, a killed worker, a timeout, a lock never given back"
    return [_TrendFinding(_OUTCOME.MISSED, said, remedy, first.transcript)]


def _errors(found: Soak) -> list[_TrendFinding]:
    if not found.errors:
        return []
    warm = [window for window in found.windows if window.at_s <= WARM_UP * found.length_s]
    later = [window for window in found.windows if window.at_s > WARM_UP * found.length_s]
    before, after = _error_share(warm), _error_share(later)
    count = sum(window.errors for window in later)
    if count >= FEWEST_ERRORS and after - before >= ERROR_RATIO:
        began = next(window.at_s for window in later if window.errors)
        said = (
            f"errors come with time: {formatting.percent(after)} of the steps after {began:.1f} s,"
            f" {formatting.percent(before)} in the warm-up; the first: {found.error}"
        )
        remedy = "see what step() holds on to from one step to the next: the error is not there when a session begins"
        return [_TrendFinding(_OUTCOME.MISSED, said, remedy, found.error_transcript)]
    if found.steps < found.errors:
        said = f"most steps were answered with an error, from the start on: {found.error}"
        remedy = "write an action that may be repeated with --openenv-action"
        return [_TrendFinding(_OUTCOME.INCONCLUSIVE, said, remedy, found.error_transcript)]
    return []


def _error_share(windows: Sequence[Window]) -> float:
    errors, steps = sum(window.errors for window in windows), sum(window.steps for window in windows)
    return errors / (errors + steps) if errors else 0.0


class _Judged:
    """The slopes of a soak after its warm-up, and what they amount to over its whole length."""

    def __init__(self, found: Soak) -> None:
        self._found = found
        self._warm = [window for window in found.windows if window.at_s > WARM_UP * found.length_s]
        self.latency = self._slope(lambda window: window.p50_s)
        self.memory = self._slope(lambda window: window.sample.rss_bytes if window.sample else None)
        self.threads = self._slope(lambda window: window.sample.threads if window.sample else None)
        self.descriptors = self._slope(lambda window: window.sample.descriptors if window.sample else None)
        self.others = self._slope(lambda window: window.others_cores)
        self.per_step = self._memory_by_steps()
        self.busy = _mean([window.client_busy for window in self._warm])

    def _slope(self, value: Callable[[Window], float | None]) -> Drift | None:
        return drift([window.at_s for window in self._warm], [value(window) for window in self._warm])

    def _memory_by_steps(self) -> Drift | None:
        taken, x, y = 0, list[float](), list[float | None]()
        for window in self._warm:
            taken += window.steps
            x.append(taken)
            y.append(window.sample.rss_bytes if window.sample else None)
        return drift(x, y)

    def memory_findings(self) -> list[_TrendFinding]:
        length, steps = self._found.length_s, self._found.steps
        found, by_step = self.memory, self.per_step
        if found is None or by_step is None:
            return []
        over_time = found.rises(length, ratio=MEMORY_RATIO, least=MEMORY_LEAST_BYTES)
        over_steps = by_step.rises(steps, ratio=0.0, least=max(PER_STEP_LEAST_BYTES, PER_STEP_BYTES * steps))
        if not over_time and not over_steps:
            return []
        low, high = formatting.size(round(by_step.low)), formatting.size(round(by_step.high))
        said = (
            f"memory grows by {formatting.size(round(by_step.slope))} per step (99 % interval {low} to {high}):"
            f" {formatting.size(round(found.slope * length))} in {length:g} s,"
            f" {formatting.size(round(found.slope * 3600))} in an hour at this pace"
        )
        remedy = (
            "free in reset() what step() collects: a list that only grows, a cache without a limit, a log in memory"
            " (tracemalloc in the server's process says where it was allocated)"
        )
        return [_TrendFinding(_OUTCOME.MISSED, said, remedy)]

    def count_findings(self, things: str, thing: str, found: Drift | None) -> list[_TrendFinding]:
        length = self._found.length_s
        if found is None or not found.rises(length, ratio=COUNT_RATIO, least=COUNT_LEAST):
            return []
        said = (
            f"{things} grow by {found.slope * 3600:,.0f} an hour while the number of sessions stays the same:"
            f" {found.start:g} at the start, {round(found.slope * length):+d} over {length:g} s"
        )
        remedy = f"close each {thing} where it was opened; reset() and step() must leave as many as they found"
        return [_TrendFinding(_OUTCOME.MISSED, said, remedy)]

    def latency_findings(self) -> list[_TrendFinding]:
        length, found = self._found.length_s, self.latency
        if found is None:
            if self._found.lost:
                return []
            steps = formatting.count_of(self._found.steps, "step")
            said = f"too few windows had steps in them for a slope: {steps} in all"
            return [_TrendFinding(_OUTCOME.INCONCLUSIVE, said, "play for longer: --openenv-soak 5m")]
        if not found.may_rise(length, ratio=LATENCY_RATIO, least=LATENCY_LEAST_S):
            return []
        surely = found.rises(length, ratio=LATENCY_RATIO, least=LATENCY_LEAST_S)
        said = (
            f"steps {'take' if surely else 'may take'} longer and longer: p50 {formatting.seconds(found.start)} at the"
            f" start, {_signed(found.slope * length)} over {length:g} s"
            f" (99 % interval {_signed(found.low * length)} to {_signed(found.high * length)})"
        )
        if self.busy > MAX_BUSY_SHARE:
            why = f"this client was {self.busy:.0%} busy, so that the latency may be its own: {said}"
            return [_TrendFinding(_OUTCOME.INCONCLUSIVE, why, "run the check where this client has a core of its own")]
        if self.others is not None and self.others.slope * length > OTHERS_CORES and self.others.low > 0:
            why = (
                f"others on this machine used {self.others.slope * length:.1f} cores more at the end than at the start,"
                f" which latency may show: {said}"
            )
            return [
                _TrendFinding(_OUTCOME.INCONCLUSIVE, why, "ask again on a machine where nothing else begins to work")
            ]
        if not surely:
            return [_TrendFinding(_OUTCOME.INCONCLUSIVE, said, "play for longer: --openenv-soak 5m")]
        remedy = (
            "see what a step goes through that grows with each: a history that is searched or copied,"
            " a file that is read again, a queue that is never emptied"
        )
        return [_TrendFinding(_OUTCOME.MISSED, said, remedy)]

    def sentence(self) -> str:
        """Say what was played and what it cost."""
        found = self._found
        told = [f"{formatting.count_of(found.sessions, 'session')} took {found.steps:,} steps in {self._lasted:.0f} s"]
        if self.latency is not None:
            over = _signed(self.latency.slope * found.length_s)
            told.append(f"p50 {formatting.seconds(self.latency.start)} ({over} over the soak)")
        if self.memory is not None:
            grown = formatting.size(round(self.memory.slope * found.length_s))
            told.append(f"memory {formatting.size(round(self.memory.start))} ({_plus(grown)})")
        told.append(formatting.count_of(found.errors, "error"))
        return ", ".join(told)

    @property
    def _lasted(self) -> float:
        return self._found.windows[-1].at_s if self._found.windows else 0.0

    def remarks(self) -> tuple[str, ...]:
        """Say what could not be judged, and what was seen but is no failure."""
        said: list[str] = []
        if self.memory is None and not self._found.lost:
            said.append("the server's memory, threads and descriptors cannot be read here and were not judged")
        length, latency = self._found.length_s, self.latency
        if latency is not None and latency.jumps(length, ratio=LATENCY_RATIO, least=LATENCY_LEAST_S):
            said.append(
                f"p50 went up by about {formatting.seconds(latency.slope * length)}, but at once and not on and on:"
                " something else that began to work, or a growth that has ended"
            )
        if self._found.errors and self._found.error is not None:
            said.append(
                f"{formatting.count_of(self._found.errors, 'answer')} was an error; the first: {self._found.error}"
            )
        return tuple(said)

    def figures(self) -> dict[str, float | int | str | bool | None]:
        """Return everything by name; slopes per hour, each with the ends of its interval."""
        found = self._found
        told: dict[str, float | int | str | bool | None] = {
            "sessions": found.sessions,
            "lost_sessions": len(found.lost),
            "soak_s": found.length_s,
            "windows": len(found.windows),
            "steps": found.steps,
            "errors": found.errors,
            "steps_per_second": found.steps / self._lasted if self._lasted else None,
            "client_busy_ratio": self.busy,
        }
        slopes = (
            ("step_p50", "s", self.latency),
            ("memory", "bytes", self.memory),
            ("threads", "", self.threads),
            ("descriptors", "", self.descriptors),
        )
        for name, unit, slope in slopes:
            end = f"_{unit}" if unit else ""
            told[f"{name}_start{end}"] = slope.start if slope else None
            for part in ("slope", "low", "high"):
                value = getattr(slope, part) * 3600 if slope else None
                told[f"{name}_per_hour{'' if part == 'slope' else f'_{part}'}{end}"] = value
        for part in ("slope", "low", "high"):
            value = getattr(self.per_step, part) if self.per_step else None
            told[f"memory_per_step{'' if part == 'slope' else f'_{part}'}_bytes"] = value
        return told


def _series(windows: Sequence[Window]) -> dict[str, tuple[float | None, ...]]:
    def of(value: Callable[[Window], float | None]) -> tuple[float | None, ...]:
        return tuple(value(window) for window in windows)

    return {
        "at_s": of(lambda window: window.at_s),
        "steps": of(lambda window: window.steps),
        "errors": of(lambda window: window.errors),
        "step_p50_s": of(lambda window: window.p50_s),
        "step_p99_s": of(lambda window: window.p99_s),
        "rss_bytes": of(lambda window: window.sample.rss_bytes if window.sample else None),
        "threads": of(lambda window: window.sample.threads if window.sample else None),
        "descriptors": of(lambda window: window.sample.descriptors if window.sample else None),
        "client_busy_ratio": of(lambda window: window.client_busy),
        "others_cores": of(lambda window: window.others_cores),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _signed(seconds: float) -> str:
    return _plus(formatting.seconds(seconds))


def _plus(text: str) -> str:
    return text if text.startswith("-") else f"+{text}"
