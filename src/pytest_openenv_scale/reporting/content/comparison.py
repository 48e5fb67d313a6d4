"""What every report shows of a comparison with a baseline: the verdict, each change, and why."""

from __future__ import annotations

from math import ceil

from pytest_openenv_scale.analysis.changes import metric_text, percent_change
from pytest_openenv_scale.analysis.compare import effect_size
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.parsing import format_number
from pytest_openenv_scale.core.text import on_one_line
from pytest_openenv_scale.results.comparison import (
    Change,
    ComparedFigure,
    Comparison,
    CurveComparison,
    Judgement,
    Side,
    Status,
)

from .verdicts import reason_words

JUDGEMENT_MARKS = {Judgement.REGRESSED: "✗", Judgement.INCONCLUSIVE: "?", Judgement.HELD: "✓", Judgement.SHOWN: "·"}
STATUS_MARKS = {
    Status.REGRESSED: "✗",
    Status.WORSE: "!",
    Status.IMPROVED: "✓",
    Status.UNCHANGED: "·",
    Status.INCONCLUSIVE: "?",
}
CHANGE_HEADS = ("metric", "batch", "baseline", "now", "change", "effect")
STATE_TEXTS = {
    "missing": "missing: the baseline has it and the newer run does not",
    "new": "new: the baseline does not have it",
    "different": "not comparable: the two runs asked for different things",
}


def comparison_headline(comparison: Comparison) -> str:
    """Return the verdict in one line: "regressed: max_batch 128 → 64 (…), and 2 more figures"."""
    if comparison.outcome is Judgement.REGRESSED:
        worse = [(curve, change) for curve in comparison.curves for change in curve.changes_with(Status.REGRESSED)]
        more = f", and {formatting.count_of(len(worse) - 1, 'more figure')}" if len(worse) > 1 else ""
        curve, change = worse[0]
        test_suffix = f" · {on_one_line(curve.test)}" if len({other.test for other in comparison.curves}) > 1 else ""
        return f"regressed: {_change_sentence(change)} ({curve_label(curve)}{test_suffix}){more}"
    if comparison.outcome is Judgement.INCONCLUSIVE:
        return f"inconclusive: {_why_inconclusive(comparison)}"
    compared = comparison.curves_in_state("compared")
    common = formatting.count_of(len(compared), "curve")
    if comparison.outcome is Judgement.HELD:
        return f"no regression: {common} within {', '.join(comparison.fail_on)}"
    counts = {
        status: sum(len(curve.changes_with(status)) for curve in compared) for status in (Status.WORSE, Status.IMPROVED)
    }
    changes_text = ", ".join(
        f"{formatting.count_of(count, 'figure')} {status}" for status, count in counts.items() if count
    )
    return f"compared: {common}, {changes_text or 'nothing changed'}; nothing is judged without --fail-on"


def _why_inconclusive(comparison: Comparison) -> str:
    reasons = [
        f"{change.metric}{batch_suffix(change)}: {reason_text(change)} ({curve_label(curve)})"
        for curve in comparison.curves_in_state("compared")
        for change in curve.undecided_changes
    ]
    missing = (
        ()
        if comparison.allow_missing and comparison.curves_in_state("compared")
        else comparison.curves_in_state("missing")
    )
    new = (
        comparison.curves_in_state("new")
        if comparison.new_is_in_doubt or not comparison.curves_in_state("compared")
        else ()
    )
    for curves, problem in (
        (missing, "of the baseline missing"),
        (comparison.curves_in_state("different"), "not comparable"),
        (new, "without a baseline"),
    ):
        if curves:
            first = f"{curve_name(curves[0])}{rename_hint(curves[0])}"
            reasons.append(f"{formatting.count_of(len(curves), 'curve')} {problem}: {first}")
    more = f"; and {formatting.count_of(len(reasons) - 1, 'more reason')}" if len(reasons) > 1 else ""
    return (reasons[0] if reasons else "the runs have no curve in common") + more


def _change_sentence(change: Change) -> str:
    """Return a change in short: "total_p99 at batch 16 62 ms → 226 ms, allowed 93 ms"."""
    limit = f", allowed {_allowed(change)}" if change.allowed is not None else ""
    then, now = (_value_text(change.metric, figure) for figure in (change.baseline, change.now))
    return f"{change.metric}{batch_suffix(change)} {then} → {now}{limit}"


def curve_name(curve: CurveComparison) -> str:
    """Return the test and the curve: "test_scaling · local · ws · wait 0.1 s"."""
    return f"{on_one_line(curve.test)} · {curve_label(curve)}"


def curve_label(curve: CurveComparison) -> str:
    """Return which curve of its test it is: "local · ws · wait 0.1 s"."""
    wait = "" if curve.wait is None else f" · wait {format_number(curve.wait)} s"
    return f"{on_one_line(curve.infrastructure)} · {curve.mode}{wait}"


def batch_suffix(change: Change) -> str:
    """Return " at batch 16", or nothing for a figure of the whole curve."""
    return "" if change.batch is None else f" at batch {formatting.count(change.batch)}"


def rename_hint(curve: CurveComparison) -> str:
    """Return a hint that a curve without a counterpart may have been renamed; "" where no test has a like name."""
    if curve.renamed is None:
        return ""
    was = "to" if curve.state == "missing" else "from"
    return f" (did you rename it {was} {on_one_line(curve.renamed)}?)"


def _value_text(metric: str, figure: ComparedFigure) -> str:
    text = metric_text(metric, figure.value)
    return text if figure.known == "exact" or not figure.value else f"≥ {text}"


def figure_range(metric: str, figure: ComparedFigure) -> str:
    """Return a figure and its range: "62 ms (58–70 ms)"."""
    if not figure.range_width:
        return _value_text(metric, figure)
    low, high = metric_text(metric, figure.low), metric_text(metric, figure.high)
    number, blank, unit = low.partition(" ")
    low = number if blank and high.endswith(f" {unit}") else low
    return f"{_value_text(metric, figure)} ({low}–{high})"


def effect_text(change: Change) -> str:
    """Return how large a change is beside the noise: "4.2 × range, δ +0.91 large"; a dash where neither is known."""
    parts = [] if change.change_in_ranges is None else [f"{formatting.number(change.change_in_ranges)} × range"]
    if change.effect is not None:
        parts.append(f"δ {change.effect:+.2f} {effect_size(change.effect)}")
    return ", ".join(parts) or formatting.MISSING


def change_row(change: Change) -> tuple[str, ...]:
    """Return the cells of a change, in the order of `CHANGE_HEADS`."""
    ratio = change.ratio
    return (
        change.metric,
        formatting.count(change.batch),
        figure_range(change.metric, change.baseline),
        figure_range(change.metric, change.now),
        formatting.MISSING if ratio is None else "0 %" if ratio == 1 else percent_change(ratio),
        effect_text(change),
    )


def notable_changes(curve: CurveComparison) -> list[Change]:
    """Return what is worth a row: what changed, what is in doubt, what is beyond `--fail-on` but within the range."""
    beyond = [change for change in curve.changes_with(Status.UNCHANGED) if change.reason.startswith("beyond ")]
    doubtful = [change for change in curve.changes_with(Status.INCONCLUSIVE) if change.fail_on or change.batch is None]
    notable = [*curve.changes_with(Status.REGRESSED, Status.WORSE, Status.IMPROVED), *beyond, *doubtful]
    return [change for change in curve.changes if change in notable]


def status_reason(change: Change) -> str:
    """Return why a change has its status, leaving out what the columns of its row show already."""
    allowed = "" if change.allowed is None else f"allowed {_allowed(change)}; "
    shift = "" if change.ratio is None else percent_change(change.ratio)
    reason = reason_text(change).removeprefix(shift).lstrip(",; ")
    return f"{allowed if change.status is Status.REGRESSED else ''}{reason}"


def reason_text(change: Change) -> str:
    """Return why a change has its status, what is to be said of a cell in doubt included."""
    return change.reason if change.doubt is None else f"{change.reason}: {reason_words(change.doubt)}"


def _allowed(change: Change) -> str:
    """Return the worst value that passes; a number of sessions is rounded up to a whole one."""
    allowed = change.allowed
    return metric_text(change.metric, allowed if allowed is None or change.metric != "max_batch" else ceil(allowed))


def run_caption(side: Side) -> str:
    """Return which run it is: its id, when it began (UTC), its commit, and its status where it is not whole."""
    parts = [side.run_id, f"{side.started_at:%Y-%m-%d %H:%M} UTC"]
    if side.commit:
        parts.append(
            f"{side.commit[:10]}{' + changes' if side.dirty else ''}{f' ({side.branch})' if side.branch else ''}"
        )
    parts += [] if side.status in ("complete", "running") else [side.status]
    return " · ".join(map(on_one_line, parts))


def baseline_alias(comparison: Comparison) -> str:
    """Return " · named REFERENCE" where the baseline was not requested by its run id, else ""."""
    reference = comparison.reference
    is_shown = reference is not None and reference.rstrip("/").rpartition("/")[2] != comparison.baseline.run_id
    return f" · named {on_one_line(reference)}" if reference is not None and is_shown else ""


def comparison_remarks(comparison: Comparison) -> list[str]:
    """Return what to know before reading the figures: machines that differ, curves left out."""
    differing = [f"{difference.name} {difference.baseline} → {difference.now}" for difference in comparison.differences]
    remarks = [*comparison.remarks, *([f"the machines differ: {', '.join(differing)}"] if differing else [])]
    if comparison.others:
        more = f" and {len(comparison.others) - 5} more" if len(comparison.others) > 5 else ""
        remarks.append(f"in the baseline, but not part of this run: {', '.join(comparison.others[:5])}{more}")
    return remarks


def comparison_notes(comparison: Comparison, *, effects: bool = True) -> str:
    """Return how the figures are to be read; nothing where none were compared."""
    repeated = any(change.baseline.repetitions > 1 for curve in comparison.curves for change in curve.changes)
    parts = [
        "a figure over repetitions is their median (their range); it counts as changed outside the baseline's range"
        if repeated
        else "the baseline was measured once, so its spread is unknown: a single run may differ by chance alone",
    ]
    if effects and any(change.effect is not None for curve in comparison.curves for change in curve.changes):
        parts.append("δ is Cliff's delta of the sessions: +1 where every session is slower now")
    return "; ".join(parts) if comparison.curves_in_state("compared") else ""
