"""A comparison with a baseline as Markdown: a pull request's comment, a report's section, a log's entry."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_openenv_scale.reporting.content.comparison import (
    CHANGE_HEADS,
    JUDGEMENT_MARKS,
    STATE_TEXTS,
    STATUS_MARKS,
    baseline_alias,
    change_row,
    comparison_headline,
    comparison_notes,
    comparison_remarks,
    curve_name,
    notable_changes,
    rename_hint,
    run_caption,
    status_reason,
)
from pytest_openenv_scale.reporting.text.comparison import COMMENT_CHARACTERS
from pytest_openenv_scale.results.comparison import Change, Comparison, CurveComparison, Status, join_comparisons
from pytest_openenv_scale.verdict.sweep import SweepView

from . import escape, markdown_table

_RIGHT = CHANGE_HEADS[1:]


def comparison_section(sweeps: Iterable[SweepView]) -> list[str]:
    """Return the comparisons of a run for its Markdown report, folded but for what changed; nothing without any."""
    comparisons = join_comparisons(view.record.comparison for view in sweeps if view.record.comparison is not None)
    if not comparisons:
        return []
    lines = [line for comparison in comparisons for line in comparison_markdown(comparison).splitlines()]
    return ["## Comparison with the baseline", "", *lines, ""]


def comparison_entry(sweeps: Iterable[SweepView]) -> list[str]:
    """Return the comparisons of a run in a few lines of Markdown, for its log."""
    comparisons = join_comparisons(view.record.comparison for view in sweeps if view.record.comparison is not None)
    lines: list[str] = []
    for comparison in comparisons:
        lines.append(f"- **{JUDGEMENT_MARKS[comparison.outcome]} {escape(comparison_headline(comparison))}**")
        lines.append(f"- baseline {escape(run_caption(comparison.baseline) + baseline_alias(comparison))}")
        lines += [f"- {escape(sentence)}" for sentence in comparison_remarks(comparison)]
    return ["### Comparison with the baseline", "", *lines, ""] if lines else []


def comparison_markdown(comparison: Comparison) -> str:
    """Return a comment for a pull request: verdict, what changed, all else folded away; at most 65,536 characters."""
    head = [f"### {JUDGEMENT_MARKS[comparison.outcome]} OpenEnv scaling: {escape(comparison_headline(comparison))}", ""]
    head += [f"- **{escape(sentence)}**" for sentence in comparison_remarks(comparison)]
    unpaired = [curve for curve in comparison.curves if curve.state != "compared"]
    head += [
        f"- {escape(curve_name(curve))}: {escape(STATE_TEXTS[curve.state] + rename_hint(curve))}" for curve in unpaired
    ]
    head += [f"- {escape(f'{curve_name(curve)}: {remark}')}" for curve in comparison.curves for remark in curve.remarks]
    head += [""] if len(head) > 2 else []
    changed = [(curve, change) for curve in comparison.curves_in_state("compared") for change in notable_changes(curve)]
    changed.sort(key=lambda pair: list(Status).index(pair[1].status))
    every_change = [(curve, change) for curve in comparison.curves_in_state("compared") for change in curve.changes]
    foot = [
        "",
        escape(comparison_notes(comparison)),
        "",
        f"Baseline: {escape(run_caption(comparison.baseline) + baseline_alias(comparison))}",
    ]
    foot += ["", f"Now: {escape(run_caption(comparison.now))}", ""]
    folded = ["<details><summary>Every figure</summary>", ""], ["", "</details>", ""]
    room = COMMENT_CHARACTERS - sum(len(line) + 1 for line in (*foot, *folded[0], *folded[1])) - 400
    top = _truncated(head, room // 2)
    room -= sum(len(line) + 1 for line in top)
    table_of_changes = (
        _truncated(_change_table(changed), room) if changed else ["Nothing changed."] if every_change else []
    )
    room -= sum(len(line) + 1 for line in table_of_changes)
    everything = [*folded[0], *_truncated(_change_table(every_change), room), *folded[1]] if every_change else []
    return "\n".join([*top, *table_of_changes, *foot, *everything])


def _change_table(pairs: Iterable[tuple[CurveComparison, Change]]) -> list[str]:
    rows = [
        [
            f"{STATUS_MARKS[change.status]} {change.status}",
            escape(curve_name(curve)),
            *map(escape, change_row(change)),
            escape(status_reason(change)),
        ]
        for curve, change in pairs
    ]
    return markdown_table(["", "curve", *CHANGE_HEADS, "because"], rows, right=_RIGHT)


def _truncated(lines: list[str], room: int) -> list[str]:
    """Return as many lines as fit into `room` characters, and a line that counts those left out."""
    fitting: list[str] = []
    for line in lines:
        room -= len(line) + 1
        if room < 80:
            return [*fitting, "", f"{len(lines) - len(fitting)} more lines are left out: a comment holds no more."]
        fitting.append(line)
    return fitting
