"""What every report begins with: an entry per curve, tallies, the checks, and what keeps a run from being whole."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from pytest_openenv_scale.analysis.run import Run
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.text import on_one_line
from pytest_openenv_scale.results.manifest import Manifest
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckRecord, Outcome, Transcript
from pytest_openenv_scale.verdict.sweep import SweepView

CHECK_MARKS = {
    CheckOutcome.MET: "✓",
    CheckOutcome.MISSED: "✗",
    CheckOutcome.INCONCLUSIVE: "?",
    CheckOutcome.SKIPPED: "–",
}
"""The sign of each outcome of a check."""


def check_tally(checks: Sequence[CheckRecord]) -> str:
    """Return how the checks came out: "12 checks: 10 met, 1 missed, 1 skipped, 2 not asked"."""
    words = ["not asked" if check.result.not_asked else check.result.outcome.value for check in checks]
    counts = [f"{words.count(word)} {word}" for word in (*CheckOutcome, "not asked") if word in words]
    return f"{formatting.count_of(len(words), 'check')}: {', '.join(counts)}"


def check_name(check: CheckRecord) -> str:
    """Return the test without its file: "test_isolation[interleaved]"."""
    return on_one_line(check.test.rpartition("::")[2].removeprefix("test_"))


def check_properties(check: CheckRecord) -> list[tuple[str, object]]:
    """Return what a JUnit file says of a check: `openenv_verdict`, `openenv_reason` and its figures by name."""
    result = check.result
    properties: list[tuple[str, object]] = [
        ("openenv_verdict", result.outcome.value),
        ("openenv_target", on_one_line(check.target)),
        ("openenv_infrastructure", on_one_line(check.infrastructure)),
        ("openenv_reason", on_one_line(result.headline)),
    ]
    return [*properties, *((f"openenv_{name}", value) for name, value in result.figures.items() if value is not None)]


def conversation_lines(transcript: Transcript) -> list[str]:
    """Return what a session said (→) and heard (←), a message per line, with seconds since the check began."""
    return [f"{line.at_s:8.3f} s {'→' if line.by == 'client' else '←'} {line.text}" for line in transcript.said]


def figure_text(value: float | int | str | bool | None) -> str:
    """Return a figure of a check as tables show it."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return formatting.MISSING if value is None else str(value)


def curve_tally(sweeps: Iterable[SweepView]) -> str:
    """Return how the curves came out: "3 curves: 1 met, 1 missed, 1 inconclusive"."""
    outcomes = [curve.verdict.outcome for view in sweeps for curve in view.curves]
    counts = [f"{outcomes.count(outcome)} {outcome}" for outcome in Outcome if outcome in outcomes]
    return f"{formatting.count_of(len(outcomes), 'curve')}{': ' if counts else ''}{', '.join(counts)}"


def run_tally(run: Run) -> str:
    """Return how curves and checks of a run came out: "1 curve: 1 met · 12 checks: 11 met, 1 missed"."""
    parts = [curve_tally(run.sweeps)] if run.sweeps or not run.checks else []
    return " · ".join([*parts, *([check_tally(run.checks)] if run.checks else [])])


def run_times(record: Manifest) -> list[str]:
    """Return when a run started and how long it took: "started 2026-11-21 12:00:00 UTC", "took 4.0 min"."""
    times = [f"started {record.started_at:%Y-%m-%d %H:%M:%S} UTC"]
    if record.finished_at is not None:
        times.append(f"took {formatting.seconds((record.finished_at - record.started_at).total_seconds())}")
    return times


def report_command(*runs: Run) -> str:
    """Return the command that writes the reports of these runs again."""
    folders = (shlex.quote(f"{run.path.parent.name}/{run.path.name}") for run in runs)
    return " ".join(["openenv-scale report", *folders])


def run_problems(run: Run) -> list[str]:
    """Return what keeps a run from being whole: its status, sweeps that ended early, parts that are damaged."""
    problems = {
        "running": ["the run is still going on; this is what it measured so far"],
        "interrupted": ["the run was interrupted; what it measured until then is shown"],
        "failed": ["the run failed; what it measured until then is shown"],
    }.get(run.status, [])
    if not run.sweeps and not run.checks:
        problems = [*problems, "the run holds no sweep: nothing was measured"]
    cut_short = [view for view in run.sweeps if view.record.status in ("interrupted", "failed")]
    if run.status == "complete":
        problems += [f"{view.test} on {view.infrastructure}: the sweep {_ending_phrase(view)}" for view in cut_short]
    return [*problems, *run.problems]


def _ending_phrase(view: SweepView) -> str:
    return "was interrupted" if view.record.status == "interrupted" else "failed"
