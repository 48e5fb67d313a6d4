"""A comparison with a baseline for people: the terminal, a pull request's comment, the message of a failing test."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.core.compare_judge import figure_value, percent_change
from pytest_openenv_scale.core.comparison import (
    Change,
    Comparison,
    CurveComparison,
    Figure,
    Judgement,
    Side,
    Status,
    join_comparisons,
)
from pytest_openenv_scale.core.effect import effect_size
from pytest_openenv_scale.core.grammar import format_number
from pytest_openenv_scale.core.view import SweepView

from .markdown_text import table, text
from .text import DEFAULT_WIDTH, Line, Page, collapse

MOST_CHARACTERS = 65_536
"""What GitHub takes as one comment."""

MARKS = {Judgement.REGRESSED: "✗", Judgement.INCONCLUSIVE: "?", Judgement.HELD: "✓", Judgement.SHOWN: "·"}
_COLOURS = {
    Judgement.REGRESSED: {"red": True},
    Judgement.INCONCLUSIVE: {"yellow": True},
    Judgement.HELD: {"green": True},
    Judgement.SHOWN: {},
}
_STATUS_MARKS = {
    Status.REGRESSED: "✗",
    Status.WORSE: "!",
    Status.IMPROVED: "✓",
    Status.UNCHANGED: "·",
    Status.INCONCLUSIVE: "?",
}
_STATUS_COLOURS = {Status.REGRESSED: {"red": True}, Status.INCONCLUSIVE: {"yellow": True}}

_ROOM_FOR_EFFECTS = 105
"""Columns from which on the sizes of effects usually fit."""

HEADS = ("metric", "batch", "baseline", "now", "change", "effect")
_RIGHT = HEADS[1:]
_STATES = {
    "missing": "missing: the baseline has it and the newer run does not",
    "new": "new: the baseline does not have it",
    "different": "not comparable: the two runs asked for different things",
}


def headline(found: Comparison) -> str:
    """Return the verdict in one line: "regressed: max_batch 128 → 64 (…), and 2 more figures"."""
    if found.outcome is Judgement.REGRESSED:
        worse = [(curve, change) for curve in found.curves for change in curve.of(Status.REGRESSED)]
        more = f", and {text_of.count_of(len(worse) - 1, 'more figure')}" if len(worse) > 1 else ""
        curve, change = worse[0]
        of = f" · {collapse(curve.test)}" if len({each.test for each in found.curves}) > 1 else ""
        return f"regressed: {_sentence(change)} ({_place(curve)}{of}){more}"
    if found.outcome is Judgement.INCONCLUSIVE:
        return f"inconclusive: {_why_inconclusive(found)}"
    compared = found.all_of("compared")
    common = text_of.count_of(len(compared), "curve")
    if found.outcome is Judgement.HELD:
        return f"no regression: {common} within {', '.join(found.fail_on)}"
    counts = {status: sum(len(curve.of(status)) for curve in compared) for status in (Status.WORSE, Status.IMPROVED)}
    told = ", ".join(f"{text_of.count_of(count, 'figure')} {status}" for status, count in counts.items() if count)
    return f"compared: {common}, {told or 'nothing changed'}; nothing is judged without --fail-on"


def _why_inconclusive(found: Comparison) -> str:
    reasons = [
        f"{change.metric}{_at(change)}: {change.reason} ({_place(curve)})"
        for curve in found.all_of("compared")
        for change in curve.judged_in_doubt
    ]
    missing = () if found.allow_missing and found.all_of("compared") else found.all_of("missing")
    new = found.all_of("new") if found.new_is_in_doubt or not found.all_of("compared") else ()
    for curves, what in (
        (missing, "of the baseline missing"),
        (found.all_of("different"), "not comparable"),
        (new, "without a baseline"),
    ):
        if curves:
            first = f"{_curve(curves[0])}{_renamed(curves[0])}"
            reasons.append(f"{text_of.count_of(len(curves), 'curve')} {what}: {first}")
    more = f"; and {text_of.count_of(len(reasons) - 1, 'more reason')}" if len(reasons) > 1 else ""
    return (reasons[0] if reasons else "the runs have no curve in common") + more


def _sentence(change: Change) -> str:
    """Return a change in short: "total_p99 at batch 16 62 ms → 226 ms, allowed 93 ms"."""
    limit = f", allowed {_allowed(change)}" if change.allowed is not None else ""
    then, now = (_known(change.metric, figure) for figure in (change.baseline, change.now))
    return f"{change.metric}{_at(change)} {then} → {now}{limit}"


def _curve(curve: CurveComparison) -> str:
    return f"{collapse(curve.test)} · {_place(curve)}"


def _place(curve: CurveComparison) -> str:
    wait = "" if curve.wait is None else f" · wait {format_number(curve.wait)} s"
    return f"{collapse(curve.infrastructure)} · {curve.mode}{wait}"


def _at(change: Change) -> str:
    return "" if change.batch is None else f" at batch {text_of.count(change.batch)}"


def _renamed(curve: CurveComparison) -> str:
    if curve.renamed is None:
        return ""
    was = "to" if curve.state == "missing" else "from"
    return f" (did you rename it {was} {collapse(curve.renamed)}?)"


def _known(metric: str, figure: Figure) -> str:
    shown = figure_value(metric, figure.value)
    return shown if figure.known == "exact" or not figure.value else f"≥ {shown}"


def _figure(metric: str, figure: Figure) -> str:
    """Return a figure and its range: "62 ms (58–70 ms)"."""
    if not figure.spread:
        return _known(metric, figure)
    low, high = figure_value(metric, figure.low), figure_value(metric, figure.high)
    number, blank, unit = low.partition(" ")
    low = number if blank and high.endswith(f" {unit}") else low
    return f"{_known(metric, figure)} ({low}–{high})"


def effect_words(change: Change) -> str:
    """Return how large a change is beside the noise: "4.2 × range, δ +0.91 large"; a dash where nobody knows."""
    parts = [] if change.spreads is None else [f"{text_of.number(change.spreads)} × range"]
    if change.effect is not None:
        parts.append(f"δ {change.effect:+.2f} {effect_size(change.effect)}")
    return ", ".join(parts) or text_of.MISSING


def _row(change: Change) -> tuple[str, ...]:
    ratio = change.ratio
    return (
        change.metric,
        text_of.count(change.batch),
        _figure(change.metric, change.baseline),
        _figure(change.metric, change.now),
        text_of.MISSING if ratio is None else "0 %" if ratio == 1 else percent_change(ratio),
        effect_words(change),
    )


def _changed(curve: CurveComparison) -> list[Change]:
    """Return what is worth a row: what changed, what is in doubt, what is beyond `--fail-on` but within the range."""
    beyond = [change for change in curve.of(Status.UNCHANGED) if change.reason.startswith("beyond ")]
    doubtful = [change for change in curve.of(Status.INCONCLUSIVE) if change.fail_on or change.batch is None]
    wanted = [*curve.of(Status.REGRESSED, Status.WORSE, Status.IMPROVED), *beyond, *doubtful]
    return [change for change in curve.changes if change in wanted]


def comparison_lines(found: Comparison, *, width: int = DEFAULT_WIDTH, encoding: str | None = None) -> list[Line]:
    """Return what a terminal shows of a comparison: the runs, what changed on each curve, the verdict last."""
    page = Page(width, encoding)
    page.say(f"baseline {_side(found.baseline)}{_named(found)}", indent=0, bold=True)
    page.say(f"now      {_side(found.now)}", indent=0, bold=True)
    for sentence in _remarks(found):
        page.say(f"! {sentence}", yellow=True)
    for curve in found.curves:
        page.blank()
        page.say(_curve(curve), indent=0, bold=True)
        if curve.state != "compared":
            page.say(f"{_STATES[curve.state]}{_renamed(curve)}", **({} if curve.state == "new" else {"yellow": True}))
        for remark in curve.remarks:
            page.say(remark)
        if curve.state == "compared":
            _curve_table(page, curve)
    page.blank()
    page.say(_explained(found, effects=page.width >= _ROOM_FOR_EFFECTS), light=True)
    page.say(f"{MARKS[found.outcome]} {headline(found)}", indent=0, bold=True, **_COLOURS[found.outcome])
    return page.lines


def _curve_table(page: Page, curve: CurveComparison) -> None:
    changes = _changed(curve)
    alike = len(curve.changes) - len(changes)
    rows = [tuple(page.fit(cell) for cell in row) for row in (HEADS, *map(_row, changes))]
    widths = [max(len(row[at]) for row in rows) for at in range(len(HEADS))]
    shown = len(HEADS) if sum(widths) + 2 * len(widths) + 2 <= page.width else len(HEADS) - 1

    def line(row: Sequence[str], mark: str) -> str:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        return f"  {mark} {'  '.join(cells[:shown])}"

    if changes:
        page.verbatim(line(rows[0], " "), bold=True)
    for change, row in zip(changes, rows[1:], strict=True):
        colour = _STATUS_COLOURS.get(change.status, {})
        page.verbatim(line(row, page.fit(_STATUS_MARKS[change.status])), **colour)
        if change.status in (Status.REGRESSED, Status.INCONCLUSIVE) or change.reason.startswith("beyond "):
            page.say(_why(change), indent=6, **colour)
    page.say(f"{text_of.count_of(alike, 'figure')} unchanged" if changes or alike else "no figure in common")


def _why(change: Change) -> str:
    """Return why a change has its status, without what its own columns say."""
    allowed = "" if change.allowed is None else f"allowed {_allowed(change)}; "
    shift = "" if change.ratio is None else percent_change(change.ratio)
    reason = change.reason.removeprefix(shift).lstrip(",; ")
    return f"{allowed if change.status is Status.REGRESSED else ''}{reason}"


def _allowed(change: Change) -> str:
    """Return the worst value that passes; of sessions, which are whole, the next above."""
    allowed = change.allowed
    return figure_value(change.metric, allowed if allowed is None or change.metric != "max_batch" else ceil(allowed))


def _side(side: Side) -> str:
    parts = [side.run_id, f"{side.started_at:%Y-%m-%d %H:%M} UTC"]
    if side.commit:
        parts.append(
            f"{side.commit[:10]}{' + changes' if side.dirty else ''}{f' ({side.branch})' if side.branch else ''}"
        )
    parts += [] if side.status in ("complete", "running") else [side.status]
    return " · ".join(map(collapse, parts))


def _named(found: Comparison) -> str:
    reference = found.reference
    shown = reference is not None and reference.rstrip("/").rpartition("/")[2] != found.baseline.run_id
    return f" · named {collapse(reference)}" if reference is not None and shown else ""


def _remarks(found: Comparison) -> list[str]:
    differing = [f"{each.name} {each.baseline} → {each.now}" for each in found.differences]
    remarks = [*found.remarks, *([f"the machines differ: {', '.join(differing)}"] if differing else [])]
    if found.others:
        more = f" and {len(found.others) - 5} more" if len(found.others) > 5 else ""
        remarks.append(f"in the baseline, but not part of this run: {', '.join(found.others[:5])}{more}")
    return remarks


def _explained(found: Comparison, *, effects: bool = True) -> str:
    repeated = any(c.baseline.repetitions > 1 for curve in found.curves for c in curve.changes)
    parts = [
        "a figure over repetitions is their median (their range); it counts as changed outside the baseline's range"
        if repeated
        else "the baseline was measured once, so its spread is unknown: a single run may differ by chance alone",
    ]
    if effects and any(c.effect is not None for curve in found.curves for c in curve.changes):
        parts.append("δ is Cliff's delta of the sessions: +1 where every session is slower now")
    return "; ".join(parts) if found.all_of("compared") else ""


def failure_lines(found: Comparison, *, width: int, encoding: str | None = None) -> str:
    """Return the message of a test that fails by comparison: the verdict, each figure that regressed, the runs."""
    page = Page(width, encoding)
    page.say(headline(found), indent=0)
    for curve in found.curves:
        for change in (*curve.of(Status.REGRESSED), *curve.judged_in_doubt):
            page.say(
                f"{_place(curve)}: {change.metric}{_at(change)}: {_figure(change.metric, change.baseline)} → "
                f"{_figure(change.metric, change.now)}: {_why(change)}"
            )
        if curve.state in ("missing", "new", "different"):
            page.say(f"{_curve(curve)}: {_STATES[curve.state]}{_renamed(curve)}")
            for remark in curve.remarks:
                page.say(remark, indent=4)
    page.say(f"baseline {_side(found.baseline)}{_named(found)}")
    for sentence in _remarks(found):
        page.say(sentence)
    return page.text


def sections(sweeps: Iterable[SweepView]) -> list[str]:
    """Return the comparisons of a run for its Markdown report, folded but for what changed; nothing without any."""
    found = join_comparisons(view.record.comparison for view in sweeps if view.record.comparison is not None)
    if not found:
        return []
    lines = [line for each in found for line in comparison_markdown(each).splitlines()]
    return ["## Comparison with the baseline", "", *lines, ""]


def comparison_entry(sweeps: Iterable[SweepView]) -> list[str]:
    """Return the comparisons of a run in a few lines of Markdown, for its log."""
    found = join_comparisons(view.record.comparison for view in sweeps if view.record.comparison is not None)
    lines: list[str] = []
    for each in found:
        lines.append(f"- **{MARKS[each.outcome]} {text(headline(each))}**")
        lines.append(f"- baseline {text(_side(each.baseline) + _named(each))}")
        lines += [f"- {text(sentence)}" for sentence in _remarks(each)]
    return ["### Comparison with the baseline", "", *lines, ""] if lines else []


def comparison_markdown(found: Comparison) -> str:
    """Return a comment for a pull request: verdict, what changed, all else folded away; at most 65,536 characters."""
    head = [f"### {MARKS[found.outcome]} OpenEnv scaling: {text(headline(found))}", ""]
    head += [f"- **{text(sentence)}**" for sentence in _remarks(found)]
    alone = [curve for curve in found.curves if curve.state != "compared"]
    head += [f"- {text(_curve(curve))}: {text(_STATES[curve.state] + _renamed(curve))}" for curve in alone]
    head += [f"- {text(f'{_curve(curve)}: {remark}')}" for curve in found.curves for remark in curve.remarks]
    head += [""] if len(head) > 2 else []
    changed = [(curve, change) for curve in found.all_of("compared") for change in _changed(curve)]
    changed.sort(key=lambda pair: list(Status).index(pair[1].status))
    rest = [(curve, change) for curve in found.all_of("compared") for change in curve.changes]
    foot = ["", text(_explained(found)), "", f"Baseline: {text(_side(found.baseline) + _named(found))}"]
    foot += ["", f"Now: {text(_side(found.now))}", ""]
    folded = ["<details><summary>Every figure</summary>", ""], ["", "</details>", ""]
    room = MOST_CHARACTERS - sum(len(line) + 1 for line in (*foot, *folded[0], *folded[1])) - 400
    top = _capped(head, room // 2)
    room -= sum(len(line) + 1 for line in top)
    table_of_changes = _capped(_rows(changed), room) if changed else ["Nothing changed."] if rest else []
    room -= sum(len(line) + 1 for line in table_of_changes)
    everything = [*folded[0], *_capped(_rows(rest), room), *folded[1]] if rest else []
    return "\n".join([*top, *table_of_changes, *foot, *everything])


def _rows(pairs: Iterable[tuple[CurveComparison, Change]]) -> list[str]:
    rows = [
        [
            f"{_STATUS_MARKS[change.status]} {change.status}",
            text(_curve(curve)),
            *map(text, _row(change)),
            text(_why(change)),
        ]
        for curve, change in pairs
    ]
    return table(["", "curve", *HEADS, "because"], rows, right=_RIGHT)


def _capped(lines: list[str], room: int) -> list[str]:
    """Return as many lines as fit, and say how many were left out."""
    kept: list[str] = []
    for line in lines:
        room -= len(line) + 1
        if room < 80:
            return [*kept, "", f"{len(lines) - len(kept)} more lines are left out: a comment holds no more."]
        kept.append(line)
    return kept
