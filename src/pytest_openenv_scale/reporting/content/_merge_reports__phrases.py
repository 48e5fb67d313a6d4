"""What reports say in words: the same sentences in the terminal, in Markdown and in a failing test."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.core.cell_verdict import error_words
from pytest_openenv_scale.core.grammar import format_number
from pytest_openenv_scale.core.manifest import SweepRecord
from pytest_openenv_scale.core.outcome import CurveVerdict, Outcome, Reason, Refusal
from pytest_openenv_scale.core.plan import Curve
from pytest_openenv_scale.core.slo import LIMITS, LimitKind
from pytest_openenv_scale.core.summary import CellSummary, ErrorCount
from pytest_openenv_scale.core.view import CurveView

from .columns import Row
from .text import collapse, plain

MARKS = {Outcome.MET: "✓", Outcome.MISSED: "✗", Outcome.INCONCLUSIVE: "?"}
COLOURS = {Outcome.MET: "green", Outcome.MISSED: "red", Outcome.INCONCLUSIVE: "yellow"}


def curve_facts(record: SweepRecord, curve: Curve) -> str:
    """Return what tells a curve apart: "local-uvicorn · ws · wait 1 s · hold · 3 reps · 2 cores"."""
    facts = [curve.infrastructure, curve.mode]
    facts += [] if curve.wait is None else [f"wait {format_number(curve.wait)} s"]
    facts += [f"{curve.steps} steps"] if curve.steps > 1 else []
    facts += [curve.arrival, text_of.count_of(record.reps, "rep")]
    facts += [] if record.cores is None else [text_of.count_of(record.cores, "core")]
    return " · ".join(facts)


def max_batch(verdict: CurveVerdict) -> str:
    """Return the max batch as a table shows it: "128", "≥ 128" where no batch was too large, "none", "unknown"."""
    if verdict.max_batch is None:
        return "none" if verdict.infeasible_min is not None else "unknown"
    return f"{'≥ ' if is_open(verdict) else ''}{text_of.count(verdict.max_batch)}"


def is_open(verdict: CurveVerdict) -> bool:
    """Say whether every batch asked for passes, so that a larger one might too."""
    return verdict.max_batch == max(verdict.curve.batches)


def scaling_note(verdict: CurveVerdict, batch: int, success: float | None) -> str:
    """Return what became of a batch: "perfect scaling", "max reliable", "above capacity", "complete failure"."""
    cell = verdict.cell(batch)
    if cell is None or cell.passed is None:
        return "inconclusive"
    if not cell.passed:
        return "complete failure" if success == 0 else "above capacity"
    if batch > (verdict.max_batch or 0):
        return "passes, though a smaller batch does not"
    if batch == verdict.max_batch:
        return "max reliable, the largest asked for" if is_open(verdict) else "max reliable"
    return "perfect scaling" if success == 1 else "reliable"


def max_batch_sentence(verdict: CurveVerdict) -> str:
    """Return the max batch, and per core where the cores are known."""
    per_core = verdict.max_batch_per_core
    text = f"max batch {max_batch(verdict)}"
    text += "" if per_core is None else f" ({text_of.number(per_core)} per core)"
    return f"{text}: the largest batch asked for passes" if is_open(verdict) else text


def first_broken(verdict: CurveVerdict) -> str | None:
    """Return the limit that broke first, observed against allowed; None where none broke."""
    return None if verdict.first_breach is None else f"first limit broken: {verdict.first_breach.text}"


def refusal(found: Refusal) -> str:
    """Return what refused sessions, and what to do about it."""
    remedy = f" → {found.remedy}" if found.remedy else ""
    who = "the platform" if found.cause.startswith("platform") else "the server"
    return f"{who} refused {text_of.count_of(found.count, 'session')} at batch {found.batch}: {found.text}{remedy}"


def repetitions_note(rows: Sequence[Row]) -> str | None:
    """Say how several repetitions are shown as one row; None where there is one of each."""
    most = max((len(row.repetitions) for row in rows), default=0)
    if most < 2:
        return None
    return f"each figure is the worst of {most} repetitions; ± p99 is half their range of total p99"


def few_note(rows: Sequence[Row]) -> str | None:
    """Say for which numbers of sessions a 99th percentile is almost the slowest one; None where for none."""
    counts = {stats.count for row in rows for summary in row.repetitions if (stats := summary.phase("total"))}
    few = sorted(count for count in counts if text_of.few(count, "p99"))
    if not few:
        return None
    shown = text_of.several(few) if len(few) <= 6 else f"{few[0]} to {few[-1]}"
    return f"p99 of {shown} ≈ max"


def remarks(verdict: CurveVerdict) -> list[Reason]:
    """Return what else is to be said of a curve: its reasons after the headline, and why it ended early."""
    told = (verdict.headline, first_broken(verdict) or "")
    found = [reason for reason in verdict.reasons[1:] if not any(reason.text in text for text in told)]
    if verdict.stop_reason:
        found.append(Reason("incomplete", verdict.stop_reason))
    return found


def error_sentence(error: ErrorCount) -> str:
    """Return one way sessions failed: "56 capacity in reset: Server at capacity"."""
    message = collapse(error.message or "")
    return error_words(error) + (f": {message[:200]}" if message else "")


def log_of(summaries: Iterable[CellSummary], lines: int) -> list[str]:
    """Return the last lines of the server's log from the last cell in which something failed."""
    tails = [summary.log_tail for summary in summaries if summary.log_tail]
    found = [line.rstrip() for line in plain(tails[-1]).splitlines() if line.strip()] if tails else []
    return found[-lines:]


def rerun(record: SweepRecord, curve: Curve) -> str | None:
    """Return the command that measures one curve again: that of the sweep, narrowed to the curve."""
    if not record.rerun:
        return None
    axes = {
        "--openenv-waits": None if curve.wait is None else format_number(curve.wait),
        "--openenv-modes": curve.mode,
    }
    several = {
        "--openenv-waits": len({other.wait for other in record.curves}) > 1,
        "--openenv-modes": len({other.mode for other in record.curves}) > 1,
    }
    words = shlex.split(record.rerun)
    for option, value in axes.items():
        if value is not None and several[option]:
            while option in words:
                at = words.index(option)
                del words[at : at + 2]
            words += [option, value]
    return shlex.join(words)


def by_repetition(view: CurveView) -> str | None:
    """Return the figure of the limit that broke first in every repetition of that batch, if there are several."""
    breach = view.verdict.first_breach
    kind = LIMITS.get(breach.limit) if breach else None
    if breach is None or kind is None or breach.allowed is None:
        return None
    cells = [summary for summary in view.summaries if summary.batch == breach.batch]
    found = [_figure(summary, kind) for summary in cells]
    if len(found) < 2:
        return None
    unit, name = ("seconds", f"{kind.phase}_{kind.statistic}") if kind.phase else (kind.unit, kind.name)
    shown = [text_of.MISSING if value is None else text_of.observed(unit, value, breach.allowed) for value in found]
    return f"{name} in the {len(shown)} repetitions: {', '.join(shown)}"


def _figure(summary: CellSummary, kind: LimitKind) -> float | None:
    if kind.phase and kind.statistic:
        stats = summary.phase(kind.phase)
        return getattr(stats, kind.statistic) if stats else None
    return summary.success_rate if kind.name == "success" else summary.hosts
