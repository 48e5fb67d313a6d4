"""The history of curves on a terminal: a line that rises and falls, and a row per run."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.core.compare_judge import figure_value
from pytest_openenv_scale.core.grammar import format_number
from pytest_openenv_scale.core.history import CurveHistory, Point

from . import phrases
from .text import DEFAULT_WIDTH, Line, Page, collapse, cut, speaks_unicode

_LEVELS = "▁▂▃▄▅▆▇█"
_ASCII_LEVELS = "_.-=+*#@"
_HEADS = ("run", "date (UTC)", "commit", "verdict")


def history_lines(
    curves: Sequence[CurveHistory], *, width: int = DEFAULT_WIDTH, encoding: str | None = None
) -> list[Line]:
    """Return the history of every curve: a sparkline (? inconclusive, x not whole, | another machine) and its rows."""
    page = Page(width, encoding)
    levels = _LEVELS if encoding is None or _speaks_blocks(encoding) else _ASCII_LEVELS
    for curve in curves:
        page.blank()
        page.say(f"{heading(curve)} · {collapse(curve.test)}", indent=0, bold=True)
        # The page's own translation to ASCII knows no blocks: what it prints is decided above.
        page.lines.append(Line(f"  {sparkline(curve.points, levels)}", {}))
        _rows(page, curve)
        if curve.metric not in ("max_batch", "batch_per_core") and curve.batch is None:
            page.say("the runs have no batch in common that all of them held; name one with --batch", yellow=True)
    return page.lines


def _speaks_blocks(encoding: str) -> bool:
    try:
        _LEVELS.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return speaks_unicode(encoding)


def heading(curve: CurveHistory) -> str:
    """Return what tells a curve apart: "local-uvicorn · ws · wait 1 s · total_p99 at batch 32"."""
    wait = [] if curve.wait is None else [f"wait {format_number(curve.wait)} s"]
    at = "" if curve.batch is None else f" at batch {text_of.count(curve.batch)}"
    return " · ".join([collapse(curve.infrastructure), curve.mode, *wait, f"{curve.metric}{at}"])


def sparkline(points: Sequence[Point], levels: str = _LEVELS) -> str:
    """Return one sign per run, from 0 to the largest figure; a bar stands before a run on another machine."""
    most = max((point.value for point in points if point.value), default=0.0)
    return "".join(("|" if point.machine else "") + _sign(point, most, levels) for point in points)


def _sign(point: Point, most: float, levels: str) -> str:
    if not point.is_whole:
        return "x"
    if point.value is None or point.known == "inconclusive":
        return "?"
    return levels[round(max(point.value, 0.0) / most * (len(levels) - 1))] if most else levels[0]


def shown_value(curve: CurveHistory, point: Point) -> str:
    """Return a figure as a table shows it: "≥ 128" where it may be more, a dash where there is none."""
    shown = figure_value(curve.metric, point.value)
    capacity = curve.metric in ("max_batch", "batch_per_core")
    return f"≥ {shown}" if capacity and point.value and point.known != "exact" else shown


def _rows(page: Page, curve: CurveHistory) -> None:
    rows = [(*_HEADS[:3], curve.metric, _HEADS[3])]
    rows += [_row(curve, point) for point in curve.points]
    fitted = [[page.fit(cell) for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in fitted) for at in range(len(fitted[0]))]
    for row, point in zip(fitted, (None, *curve.points), strict=True):
        cells = [
            f"{cell:{'>' if at == 3 else '<'}{width}}" for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        colour = {phrases.COLOURS[point.outcome]: True} if point else {"bold": True}
        page.verbatim(cut(f"  {'  '.join(cells)}", page.width), **colour)
        if point and point.machine:
            page.say(f"another machine: {', '.join(point.machine)}", indent=6, light=True)


def _row(curve: CurveHistory, point: Point) -> tuple[str, ...]:
    run = point.run
    commit = f"{run.commit[:10]}{'+' if run.dirty else ''}" if run.commit else text_of.MISSING
    verdict = f"{phrases.MARKS[point.outcome]} {point.outcome}"
    whole = "" if point.is_whole else f", {run.status}"
    return run.run_id, f"{run.started_at:%Y-%m-%d %H:%M}", commit, shown_value(curve, point), f"{verdict}{whole}"
