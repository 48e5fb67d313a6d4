"""Endurance: while sessions play on, latency, memory, threads, descriptors and errors stay as they are."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from typing import Any

from pytest_openenv_scale.checks.subject import Figures, Subject
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.load.client_health import MAX_BUSY_SHARE
from pytest_openenv_scale.load.runner import LoadError
from pytest_openenv_scale.metrics.drift import (
    COUNT_LEAST,
    COUNT_RATIO,
    ERROR_RATIO,
    FEWEST_ERRORS,
    LATENCY_LEAST_S,
    LATENCY_RATIO,
    MEMORY_LEAST_BYTES,
    MEMORY_RATIO,
    PER_STEP_BYTES,
    PER_STEP_LEAST_BYTES,
    Drift,
    drift,
)
from pytest_openenv_scale.results.cell import SessionRow
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult

from .soak import Play, Soak, play_in_processes, soak

OTHERS_CORES = 0.5
"""From so many more cores used by others on this machine at the end than at the start, latency may be due to them."""

_OUTCOME = CheckOutcome
_COLUMNS = ("steps", "step_p50_s", "step_p99_s", "open_least", "rss_bytes", "threads", "descriptors", "cpu_share")
_SERIES = {"at_s": "end_s", **{column: column for column in _COLUMNS}}
"""The series of a soak by name, and the columns of its windows that they hold."""

_MOST_LISTED = 5
"""Most lost sessions that are listed one by one."""


async def steady_soak(subject: Subject, play: Play = play_in_processes) -> CheckResult:
    """Play for `subject.soak_s` and judge, by their slopes, latency, memory, threads, descriptors and errors."""
    if subject.soak_s <= 0:
        return CheckResult(_OUTCOME.SKIPPED, "--openenv-soak 0: the endurance check was not asked for")
    try:
        return judge(await soak(subject, play))
    except LoadError as error:
        return CheckResult(_OUTCOME.INCONCLUSIVE, str(error))


def judge(result: Soak) -> CheckResult:
    """Judge a finished soak."""
    if not result.sessions:
        reason = f": {_failure_words(result.failures[0])}" if result.failures else ""
        return CheckResult(_OUTCOME.INCONCLUSIVE, f"no session could be opened that might have played on{reason}")
    trends = _SoakTrends(result)
    findings = [
        *_lost_session_findings(result),
        *_error_findings(result),
        *trends.memory_findings(),
        *trends.count_findings("threads", "thread", trends.threads),
        *trends.count_findings("descriptors", "descriptor", trends.descriptors),
        *trends.latency_findings(),
    ]
    findings.sort(key=lambda finding: finding.outcome is not _OUTCOME.MISSED)
    headlines = [*(finding.headline for finding in findings), trends.summary()]
    remarks = (*_remarks_on_failures(result), *trends.remarks())
    series = {name: tuple(getattr(window, column) for window in result.windows) for name, column in _SERIES.items()}
    return replace(
        findings[0] if findings else CheckResult(_OUTCOME.MET, headlines[0]),
        # What was played comes right after the headline.
        details=(*headlines[-1:], *headlines[1:-1], *remarks) if findings else remarks,
        figures=trends.figures(),
        series={**series, "others_cores": result.others_cores},
    )


def _lost_session_findings(result: Soak) -> list[CheckResult]:
    if not result.lost:
        return []
    first, count = result.lost[0], len({row.slot for row in result.lost})
    which = f"all {count} sessions" if count == result.sessions > 1 else f"{count} of {result.sessions} sessions"
    headline = f"{which} were lost while they played, the first after {first.closed_s:.1f} s: {_failure_words(first)}"
    remedy = "look into the server's log at that moment: a crash, a killed worker, a timeout, a lock never given back"
    return [CheckResult(_OUTCOME.MISSED, headline, remedy)]


def _error_findings(result: Soak) -> list[CheckResult]:
    if not result.errors:
        return []
    error = _failure_words(result.errors[0])
    before, after = (_error_share(result, judged=judged) for judged in (False, True))
    later = [row for row in result.errors if result.is_judged(row)]
    if len(later) >= FEWEST_ERRORS and after - before >= ERROR_RATIO:
        headline = (
            f"errors come with time: {formatting.percent(after)} of the steps after {later[0].closed_s:.1f} s,"
            f" {formatting.percent(before)} in the warm-up; the first: {error}"
        )
        remedy = "see what step() holds on to from one step to the next: the error is not there when a session begins"
        return [CheckResult(_OUTCOME.MISSED, headline, remedy)]
    if result.steps < len(result.errors):
        headline = f"most steps were answered with an error, from the start on: {error}"
        remedy = "write an action that may be repeated with --openenv-action"
        return [CheckResult(_OUTCOME.INCONCLUSIVE, headline, remedy)]
    return []


def _error_share(result: Soak, *, judged: bool) -> float:
    errors = sum(result.is_judged(row) == judged for row in result.errors)
    steps = sum(window.steps for window in result.windows if window.judged == judged)
    return errors / (errors + steps) if errors else 0.0


def _remarks_on_failures(result: Soak) -> list[str]:
    remarks = [
        f"the session of slot {row.slot} was lost after {row.closed_s:.1f} s, {row.steps_done:,} steps of its own:"
        f" {_failure_words(row)}"
        for row in result.lost[:_MOST_LISTED]
    ]
    for what, rows in (("ended with an error", result.errors), ("could not be opened", result.refused)):
        if rows:
            count = formatting.count_of(len(rows), "session")
            remarks.append(f"{count} {what}; the first: {_failure_words(rows[0])}")
    return remarks


def _failure_words(row: SessionRow) -> str:
    kind = row.error_code or (row.error_type or "failure").replace("_", " ")
    return f"{kind} in {row.error_phase}" + (f" ({row.error_message})" if row.error_message else "")


class _SoakTrends:
    """The slopes of a soak after its warm-up, and what they amount to over its whole length."""

    def __init__(self, result: Soak) -> None:
        self._result = result
        judged = [place for place, window in enumerate(result.windows) if window.judged]
        self._windows = [result.windows[place] for place in judged]
        at_s = self._column("end_s")
        self.latency, self.memory, self.threads, self.descriptors = (
            drift(at_s, self._column(name)) for name in ("step_p50_s", "rss_bytes", "threads", "descriptors")
        )
        self.others_cores = drift(at_s, [result.others_cores[place] for place in judged])
        self.per_step = drift(list(accumulate(self._column("steps"))), self._column("rss_bytes"))

    def _column(self, name: str) -> list[Any]:
        return [getattr(window, name) for window in self._windows]

    def memory_findings(self) -> list[CheckResult]:
        length, steps = self._result.length_s, self._result.steps
        by_time, by_step = self.memory, self.per_step
        if by_time is None or by_step is None:
            return []
        over_time = by_time.rises(length, ratio=MEMORY_RATIO, least=MEMORY_LEAST_BYTES)
        over_steps = by_step.rises(steps, ratio=0.0, least=max(PER_STEP_LEAST_BYTES, PER_STEP_BYTES * steps))
        if not over_time and not over_steps:
            return []
        low, high = formatting.size(round(by_step.low)), formatting.size(round(by_step.high))
        headline = (
            f"memory grows by {formatting.size(round(by_step.slope))} per step (99 % interval {low} to {high}):"
            f" {formatting.size(round(by_time.slope * length))} in {length:g} s,"
            f" {formatting.size(round(by_time.slope * 3600))} in an hour at this pace"
        )
        remedy = (
            "free in reset() what step() collects: a list that only grows, a cache without a limit, a log in memory"
            " (tracemalloc in the server's process says where it was allocated)"
        )
        return [CheckResult(_OUTCOME.MISSED, headline, remedy)]

    def count_findings(self, plural: str, singular: str, trend: Drift | None) -> list[CheckResult]:
        length = self._result.length_s
        if trend is None or not trend.rises(length, ratio=COUNT_RATIO, least=COUNT_LEAST):
            return []
        headline = (
            f"{plural} grow by {trend.slope * 3600:,.0f} an hour while the number of sessions stays the same:"
            f" {trend.start:g} at the start, {round(trend.slope * length):+d} over {length:g} s"
        )
        remedy = f"close each {singular} where it was opened; reset() and step() must leave as many as they found"
        return [CheckResult(_OUTCOME.MISSED, headline, remedy)]

    def latency_findings(self) -> list[CheckResult]:
        length, trend = self._result.length_s, self.latency
        if trend is None:
            if self._result.lost:
                return []
            steps = formatting.count_of(self._result.steps, "step")
            headline = f"too few windows had steps in them for a slope: {steps} in all"
            return [CheckResult(_OUTCOME.INCONCLUSIVE, headline, "play for longer: --openenv-soak 5m")]
        if not trend.may_rise(length, ratio=LATENCY_RATIO, least=LATENCY_LEAST_S):
            return []
        surely = trend.rises(length, ratio=LATENCY_RATIO, least=LATENCY_LEAST_S)
        headline = (
            f"steps {'take' if surely else 'may take'} longer and longer: p50 {formatting.seconds(trend.start)} at the"
            f" start, {_signed_seconds(trend.slope * length)} over {length:g} s"
            f" (99 % interval {_signed_seconds(trend.low * length)} to {_signed_seconds(trend.high * length)})"
        )
        if (busy := self._result.client_busy_ratio) > MAX_BUSY_SHARE:
            doubt = f"this client was {busy:.0%} busy, so that the latency may be its own: {headline}"
            return [CheckResult(_OUTCOME.INCONCLUSIVE, doubt, "run the check where this client has a core of its own")]
        if (
            self.others_cores is not None
            and self.others_cores.slope * length > OTHERS_CORES
            and self.others_cores.low > 0
        ):
            doubt = (
                f"others on this machine used {self.others_cores.slope * length:.1f} cores more at the end than at the"
                f" start, which latency may show: {headline}"
            )
            return [
                CheckResult(_OUTCOME.INCONCLUSIVE, doubt, "ask again on a machine where nothing else begins to work")
            ]
        if not surely:
            return [CheckResult(_OUTCOME.INCONCLUSIVE, headline, "play for longer: --openenv-soak 5m")]
        remedy = (
            "see what a step goes through that grows with each: a history that is searched or copied,"
            " a file that is read again, a queue that is never emptied"
        )
        return [CheckResult(_OUTCOME.MISSED, headline, remedy)]

    def summary(self) -> str:
        """Return what was played, with latency, memory and errors, in one sentence."""
        result = self._result
        parts = [
            f"{formatting.count_of(result.sessions, 'session')} took {result.steps:,} steps in {self._duration_s:.0f} s"
        ]
        if self.latency is not None:
            change = _signed_seconds(self.latency.slope * result.length_s)
            parts.append(f"p50 {formatting.seconds(self.latency.start)} ({change} over the soak)")
        if self.memory is not None:
            grown = formatting.size(round(self.memory.slope * result.length_s))
            parts.append(f"memory {formatting.size(round(self.memory.start))} ({_with_sign(grown)})")
        parts.append(formatting.count_of(len(result.errors), "error"))
        return ", ".join(parts)

    @property
    def _duration_s(self) -> float:
        return self._result.windows[-1].end_s if self._result.windows else 0.0

    def remarks(self) -> tuple[str, ...]:
        """Return what could not be judged, and what was seen but is no failure."""
        remarks: list[str] = []
        if self.memory is None and not self._result.lost:
            remarks.append("the server's memory, threads and descriptors cannot be read here and were not judged")
        length, latency = self._result.length_s, self.latency
        if latency is not None and latency.jumps(length, ratio=LATENCY_RATIO, least=LATENCY_LEAST_S):
            remarks.append(
                f"p50 went up by about {formatting.seconds(latency.slope * length)}, but at once and not on and on:"
                " something else that began to work, or a growth that has ended"
            )
        return tuple(remarks)

    def figures(self) -> Figures:
        """Return all figures by name; slopes per hour, each with the ends of its interval."""
        result = self._result
        figures: Figures = {
            "sessions": result.sessions,
            "lost_sessions": len(result.lost),
            "soak_s": result.length_s,
            "windows": len(self._windows),
            "steps": result.steps,
            "errors": len(result.errors),
            "steps_per_second": result.steps / self._duration_s if self._duration_s else None,
            "client_busy_ratio": self._result.client_busy_ratio,
        }
        for name, unit, slope in (
            ("step_p50", "_s", self.latency),
            ("memory", "_bytes", self.memory),
            ("threads", "", self.threads),
            ("descriptors", "", self.descriptors),
        ):
            figures[f"{name}_start{unit}"] = slope.start if slope else None
            figures |= _slope_figures(f"{name}_per_hour", unit, slope, 3600)
        return figures | _slope_figures("memory_per_step", "_bytes", self.per_step)


def _slope_figures(name: str, unit: str, slope: Drift | None, units: float = 1) -> dict[str, float | None]:
    """Return a slope over so many units of its x, and the ends of its interval."""
    parts = {"": "slope", "_low": "low", "_high": "high"}
    return {f"{name}{end}{unit}": getattr(slope, part) * units if slope else None for end, part in parts.items()}


def _signed_seconds(seconds: float) -> str:
    return _with_sign(formatting.seconds(seconds))


def _with_sign(text: str) -> str:
    return text if text.startswith("-") else f"+{text}"
