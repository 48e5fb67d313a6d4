"""What every report shows of a comparison with a baseline: the verdict, each change, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil

from pytest_openenv_scale.analysis.compare import effect_size
from pytest_openenv_scale.config.limits import METRICS
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

from .cell_verdicts import reason_words

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
        return f"inconclusive: {why_inconclusive(comparison)}"
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


def why_inconclusive(comparison: Comparison) -> str:
    """Return the first reason why a comparison is inconclusive, and how many more there are."""
    reasons = [
        f"{metric_name(change.metric)}{batch_suffix(change)}: {reason_text(change)} ({curve_label(curve)})"
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
    return f"{metric_name(change.metric)}{batch_suffix(change)} {then} → {now}{limit}"


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
    return f"{_value_text(metric, figure)} ({formatting.text_range(low, high, '–')})"


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
        metric_name(change.metric),
        formatting.count(change.batch),
        figure_range(change.metric, change.baseline),
        figure_range(change.metric, change.now),
        formatting.MISSING if ratio is None else "0 %" if ratio == 1 else percent_change(ratio),
        effect_text(change),
    )


def notable_changes(curve: CurveComparison) -> list[Change]:
    """Return what is worth a row: what changed, what is in doubt, what is beyond `--fail-on` but within the range."""
    beyond = [change for change in curve.changes if change.within_range]
    doubtful = [change for change in curve.changes_with(Status.INCONCLUSIVE) if change.fail_on or change.batch is None]
    notable = [*curve.changes_with(Status.REGRESSED, Status.WORSE, Status.IMPROVED), *beyond, *doubtful]
    return [change for change in curve.changes if change in notable]


def status_reason(change: Change) -> str:
    """Return why a change has its status, leaving out what the columns of its row show already."""
    is_limit_shown = change.status is Status.REGRESSED and change.allowed is not None
    moved = _moved_text(change) if change.ratio is None else ""
    return f"{f'allowed {_allowed(change)}; ' if is_limit_shown else ''}{_OF_CAUSE[change.why.cause](change, moved)}"


def reason_text(change: Change) -> str:
    """Return why a change has its status in a whole sentence, how far the figure moved included."""
    return _OF_CAUSE[change.why.cause](change, _moved_text(change))


_SPREAD_UNKNOWN = "spread unknown: the baseline was measured once"
_SIDES = {"baseline": "the baseline", "now": "the newer run", None: ""}


def _only_moved(change: Change, moved: str) -> str:
    spread = _SPREAD_UNKNOWN if change.batch is not None and change.baseline.repetitions < 2 else ""
    return "; ".join(filter(None, (moved, spread)))


def _beyond(change: Change, moved: str) -> str:
    if change.baseline.repetitions < 2:
        beside = f"; {_SPREAD_UNKNOWN}, judged by {change.fail_on} alone"
    else:
        beside = f" and outside {_baseline_range(change)}"
    return ", ".join(filter(None, (moved, f"beyond {change.fail_on}{beside}")))


def _baseline_range(change: Change) -> str:
    low, high = (metric_text(change.metric, value) for value in (change.baseline.low, change.baseline.high))
    return f"the baseline's {low} to {high} over {change.baseline.repetitions} repetitions"


def _side(change: Change) -> str:
    return _SIDES[change.why.side]


def _doubtful(change: Change, moved: str) -> str:
    doubt = change.why.doubt
    return f"{_side(change)} is inconclusive{'' if doubt is None else f': {reason_words(doubt)}'}"


_OF_CAUSE: Mapping[str, Callable[[Change, str], str]] = {
    "moved": _only_moved,
    "beyond": _beyond,
    "within_range": lambda change, moved: f"beyond {change.fail_on}, but within {_baseline_range(change)}",
    "within_limit": lambda change, moved: ", ".join(filter(None, (moved, f"within {change.fail_on}"))),
    "within_bracket": lambda change, moved: (
        f"{metric_text(change.metric, change.baseline.value)} is within what passes and what fails now"
    ),
    "same": lambda change, moved: "the same",
    "all_pass": lambda change, moved: "everything the baseline was asked for passes",
    "none_succeeded": lambda change, moved: "no session succeeded",
    "no_figure": lambda change, moved: f"{_side(change)} has no such figure",
    "not_measured": lambda change, moved: f"{_side(change)} did not measure batch {change.batch}",
    "not_judged": lambda change, moved: f"{_side(change)} is inconclusive: batch {change.batch} could not be judged",
    "doubtful": _doubtful,
    "not_held": lambda change, moved: (
        f"batch {formatting.count(change.batch)} does not hold now, and the sessions that are left are faster by that"
    ),
    "more_repetitions": lambda change, moved: (
        f"some of {change.now.repetitions} repetitions hold {metric_text(change.metric, change.baseline.value)} now,"
        f" and the baseline had {change.baseline.repetitions}"
    ),
    "max_batch_doubtful": lambda change, moved: (
        "the max batch is inconclusive now"
        if change.why.side == "now"
        else "the baseline's own max batch is inconclusive"
    ),
    "grids_differ": lambda change, moved: (
        f"not known to hold {metric_text(change.metric, change.baseline.value)}: the batches asked for differ"
    ),
    "not_asked": lambda change, moved: (
        f"batch {formatting.list_of_counts(list(change.why.batches))} of the baseline was not asked for now"
    ),
    "none_asked": lambda change, moved: "no batch that the baseline held was asked for now",
    "none_held": lambda change, moved: "the baseline held no batch",
    "no_cores": lambda change, moved: "the server's cores are not known; write cores=N in the target",
    "stored": lambda change, moved: change.why.words or "",
}
"""Why a change has its status in words, by the cause, after how far it moved ("" where that is shown beside it)."""


def _moved_text(change: Change) -> str:
    """Return how far a figure moved: "+23 %", or what it was and is where the baseline is not above 0."""
    then, now = change.baseline.value, change.now.value
    if change.ratio is not None:
        return percent_change(change.ratio)
    if then is None or now is None:
        return ""
    if change.batch is None:
        return f"{metric_text(change.metric, then)} → {metric_text(change.metric, now)}"
    difference = formatting.format_observed(METRICS[change.metric].unit, abs(now - then), 0.0)
    return f"{'+' if now >= then else '−'}{difference}"


def percent_change(ratio: float) -> str:
    """Return a ratio as a change: "+23 %", "−4.1 %", "×12"."""
    if ratio >= 10:
        return f"×{ratio:.3g}"
    percent = (ratio - 1) * 100
    digits = 0 if abs(percent) >= 9.95 else 1
    return f"{'−' if percent < 0 else '+'}{abs(percent):.{digits}f} %"


def metric_name(metric: str) -> str:
    """Return the name of a metric that people read."""
    return METRICS[metric].shown_name


def metric_text(metric: str, value: float | None) -> str:
    """Return a value in the unit of its metric: "1.03 s", "98.4 %", "128"; an en dash where there is none."""
    if value is None:
        return formatting.MISSING
    if metric == "max_batch":
        return formatting.count(int(value)) if value else "none"
    return formatting.format_observed(METRICS[metric].unit, value, value)


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
