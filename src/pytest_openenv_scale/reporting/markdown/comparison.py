"""A comparison with a baseline as Markdown: a pull request's comment, a report's section, a log's entry."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_openenv_scale.reporting.content.comparison import (
    HEADS,
    MARKS,
    STATES,
    STATUS_MARKS,
    baseline_alias,
    change_row,
    comparison_notes,
    comparison_remarks,
    curve_name,
    headline,
    notable_changes,
    rename_hint,
    run_caption,
    status_reason,
)
from pytest_openenv_scale.reporting.text.comparison import MOST_CHARACTERS
from pytest_openenv_scale.results.comparison import Change, Comparison, CurveComparison, Status, join_comparisons
from pytest_openenv_scale.verdict.sweep import SweepView

from . import table, text

_RIGHT = HEADS[1:]


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
        lines.append(f"- baseline {text(run_caption(each.baseline) + baseline_alias(each))}")
        lines += [f"- {text(sentence)}" for sentence in comparison_remarks(each)]
    return ["### Comparison with the baseline", "", *lines, ""] if lines else []


def comparison_markdown(found: Comparison) -> str:
    """Return a comment for a pull request: verdict, what changed, all else folded away; at most 65,536 characters."""
    head = [f"### {MARKS[found.outcome]} OpenEnv scaling: {text(headline(found))}", ""]
    head += [f"- **{text(sentence)}**" for sentence in comparison_remarks(found)]
    alone = [curve for curve in found.curves if curve.state != "compared"]
    head += [f"- {text(curve_name(curve))}: {text(STATES[curve.state] + rename_hint(curve))}" for curve in alone]
    head += [f"- {text(f'{curve_name(curve)}: {remark}')}" for curve in found.curves for remark in curve.remarks]
    head += [""] if len(head) > 2 else []
    changed = [(curve, change) for curve in found.curves_in_state("compared") for change in notable_changes(curve)]
    changed.sort(key=lambda pair: list(Status).index(pair[1].status))
    rest = [(curve, change) for curve in found.curves_in_state("compared") for change in curve.changes]
    foot = [
        "",
        text(comparison_notes(found)),
        "",
        f"Baseline: {text(run_caption(found.baseline) + baseline_alias(found))}",
    ]
    foot += ["", f"Now: {text(run_caption(found.now))}", ""]
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
            f"{STATUS_MARKS[change.status]} {change.status}",
            text(curve_name(curve)),
            *map(text, change_row(change)),
            text(status_reason(change)),
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
