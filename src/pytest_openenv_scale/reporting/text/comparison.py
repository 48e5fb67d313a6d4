"""Runs over time on a terminal: a comparison with a baseline, and the history of curves."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_openenv_scale.analysis.axes import CurveHistory, HistoryPoint
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.parsing import format_number
from pytest_openenv_scale.core.text import on_one_line, shorten
from pytest_openenv_scale.reporting.content import wording
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
    metric_name,
    metric_text,
    notable_changes,
    rename_hint,
    run_caption,
    status_reason,
)
from pytest_openenv_scale.reporting.content.runs import commit_text
from pytest_openenv_scale.results.comparison import Comparison, CurveComparison, Judgement, Status

from .page import DEFAULT_WIDTH, Line, TextPage, lay_out, supports_unicode

COMMENT_CHARACTERS = 65_536
"""The most characters GitHub takes as one comment."""

_JUDGEMENT_COLOURS = {
    Judgement.REGRESSED: {"red": True},
    Judgement.INCONCLUSIVE: {"yellow": True},
    Judgement.HELD: {"green": True},
    Judgement.SHOWN: {},
}
_STATUS_COLOURS = {Status.REGRESSED: {"red": True}, Status.INCONCLUSIVE: {"yellow": True}}

_ROOM_FOR_EFFECTS = 105
"""Columns from which on the sizes of effects usually fit."""


def comparison_lines(comparison: Comparison, *, width: int = DEFAULT_WIDTH, encoding: str | None = None) -> list[Line]:
    """Return what a terminal shows of a comparison: the runs, what changed on each curve, the verdict last."""
    page = TextPage(width, encoding)
    page.add_sentence(f"baseline {run_caption(comparison.baseline)}{baseline_alias(comparison)}", indent=0, bold=True)
    page.add_sentence(f"now      {run_caption(comparison.now)}", indent=0, bold=True)
    for sentence in comparison_remarks(comparison):
        page.add_sentence(f"! {sentence}", yellow=True)
    for curve in comparison.curves:
        page.add_blank()
        page.add_sentence(curve_name(curve), indent=0, bold=True)
        if curve.state != "compared":
            page.add_sentence(
                f"{STATE_TEXTS[curve.state]}{rename_hint(curve)}", **({} if curve.state == "new" else {"yellow": True})
            )
        for remark in curve.remarks:
            page.add_sentence(remark)
        if curve.state == "compared":
            _add_curve_table(page, curve)
    page.add_blank()
    page.add_sentence(comparison_notes(comparison, effects=page.width >= _ROOM_FOR_EFFECTS), light=True)
    page.add_sentence(
        f"{JUDGEMENT_MARKS[comparison.outcome]} {comparison_headline(comparison)}",
        indent=0,
        bold=True,
        **_JUDGEMENT_COLOURS[comparison.outcome],
    )
    return page.lines


def _add_curve_table(page: TextPage, curve: CurveComparison) -> None:
    changes = notable_changes(curve)
    unchanged = len(curve.changes) - len(changes)
    marks = [STATUS_MARKS[change.status] for change in changes]
    rows = [
        (f"{mark} {metric}", *cells)
        for mark, (metric, *cells) in zip((" ", *marks), (CHANGE_HEADS, *map(change_row, changes)), strict=True)
    ]
    heads, *lines = lay_out(page, rows, right=CHANGE_HEADS[1:], drop=[CHANGE_HEADS.index("effect")]).lines
    if changes:
        page.add_line(heads, bold=True)
    for change, line in zip(changes, lines, strict=True):
        colour = _STATUS_COLOURS.get(change.status, {})
        page.add_line(line, **colour)
        if change.status in (Status.REGRESSED, Status.INCONCLUSIVE) or change.within_range:
            page.add_sentence(status_reason(change), indent=6, **colour)
    page.add_sentence(
        f"{formatting.count_of(unchanged, 'figure')} unchanged" if changes or unchanged else "no figure in common"
    )


_LEVELS = "▁▂▃▄▅▆▇█"
_ASCII_LEVELS = "_.-=+*#@"


def history_lines(
    curves: Sequence[CurveHistory], *, width: int = DEFAULT_WIDTH, encoding: str | None = None
) -> list[Line]:
    """Return the history of every curve: a sparkline (? inconclusive, x not whole, | another machine) and its rows."""
    page = TextPage(width, encoding)
    levels = _LEVELS if encoding is None or _supports_blocks(encoding) else _ASCII_LEVELS
    for curve in curves:
        page.add_blank()
        page.add_sentence(f"{history_heading(curve)} · {on_one_line(curve.test)}", indent=0, bold=True)
        # The page's own translation to ASCII knows no blocks: what it prints is decided above.
        page.lines.append(Line(f"  {sparkline(curve.points, levels)}", {}))
        _add_history_rows(page, curve)
        if curve.metric not in ("max_batch", "batch_per_core") and curve.batch is None:
            page.add_sentence(
                "the runs have no batch in common that all of them held; name one with --batch", yellow=True
            )
    return page.lines


def _supports_blocks(encoding: str) -> bool:
    try:
        _LEVELS.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return supports_unicode(encoding)


def history_heading(curve: CurveHistory) -> str:
    """Return what distinguishes a curve: "local-uvicorn · ws · wait 1 s · total_p99 at batch 32"."""
    wait = [] if curve.wait is None else [f"wait {format_number(curve.wait)} s"]
    at = "" if curve.batch is None else f" at batch {formatting.count(curve.batch)}"
    return " · ".join([on_one_line(curve.infrastructure), curve.mode, *wait, f"{metric_name(curve.metric)}{at}"])


def sparkline(points: Sequence[HistoryPoint], levels: str = _LEVELS) -> str:
    """Return one sign per run, from 0 to the largest figure; a bar stands before a run on another machine."""
    most = max((point.value for point in points if point.value), default=0.0)
    return "".join(("|" if point.machine else "") + _sparkline_sign(point, most, levels) for point in points)


def _sparkline_sign(point: HistoryPoint, most: float, levels: str) -> str:
    if not point.is_whole:
        return "x"
    if point.value is None or point.known == "inconclusive":
        return "?"
    return levels[round(max(point.value, 0.0) / most * (len(levels) - 1))] if most else levels[0]


def value_text(curve: CurveHistory, point: HistoryPoint) -> str:
    """Return a figure as a table shows it: "≥ 128" where it may be more, a dash where there is none."""
    text = metric_text(curve.metric, point.value)
    capacity = curve.metric in ("max_batch", "batch_per_core")
    return f"≥ {text}" if capacity and point.value and point.known != "exact" else text


def _add_history_rows(page: TextPage, curve: CurveHistory) -> None:
    metric = metric_name(curve.metric)
    rows = [("run", "date (UTC)", "commit", metric, "verdict")]
    rows += [_history_row(curve, point) for point in curve.points]
    heads, *lines = lay_out(page, rows, right=[metric]).lines
    page.add_line(shorten(heads, page.width), bold=True)
    for point, line in zip(curve.points, lines, strict=True):
        page.add_line(shorten(line, page.width), **{wording.OUTCOME_COLOURS[point.outcome]: True})
        if point.machine:
            page.add_sentence(f"another machine: {', '.join(point.machine)}", indent=6, light=True)


def _history_row(curve: CurveHistory, point: HistoryPoint) -> tuple[str, str, str, str, str]:
    run = point.run
    verdict = f"{wording.OUTCOME_MARKS[point.outcome]} {point.outcome}"
    status_text = "" if point.is_whole else f", {run.status}"
    started, value = f"{run.started_at:%Y-%m-%d %H:%M}", value_text(curve, point)
    return run.run_id, started, commit_text(run), value, f"{verdict}{status_text}"
