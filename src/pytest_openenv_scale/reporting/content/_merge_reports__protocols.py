"""The protocol comparison as reports show it: one table of ws against http per test, target and wait."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.core.compare_modes import FIGURES, FOOTNOTE, Comparison, ModeResult, compare_modes
from pytest_openenv_scale.core.grammar import format_number
from pytest_openenv_scale.core.view import SweepView

from .columns import seconds
from .text import Page, collapse, cut

TITLE = "protocol comparison"
HEADS = ("target", "wait", "ws max", "http max", "ratio", "winner")
RIGHT = ("wait", "ws max", "http max", "ratio")
AT = (("ok", "success"), *((f"{phase} {statistic}", f"{phase}_{statistic}") for phase, statistic in FIGURES))
"""What is compared at the largest common batch: its name, and the field it is in."""

_SHORTEST_NAME = 6
_GAP = "  "


@dataclass(frozen=True, slots=True)
class Entry:
    """One comparison in words: `cells` follow `HEADS`; `figures` are "ws / http" at `batch` and follow `AT`."""

    test: str
    cells: tuple[str, ...]
    batch: str | None
    figures: tuple[str, ...]
    notes: tuple[str, ...]


def entries(sweeps: Iterable[SweepView]) -> list[Entry]:
    """Return an entry per comparison of these sweeps; nothing where they have only one mode."""
    return [_entry(view, found) for view in sweeps for found in compare_modes(view)]


def _entry(view: SweepView, found: Comparison) -> Entry:
    wait = text_of.MISSING if found.wait is None else f"{format_number(found.wait)} s"
    maxima = (max_batch(found.ws), max_batch(found.http))
    cells = (collapse(view.infrastructure), wait, *maxima, ratio(found), found.winner or "unknown")
    batch = None if found.batch is None else text_of.count(found.batch)
    return Entry(collapse(view.test), cells, batch, figures(found), tuple(map(collapse, found.notes)))


def max_batch(result: ModeResult) -> str:
    """Return the max batch of a mode with the sign of what is certain about it: "128", "≥ 128", "none", "unknown"."""
    if result.max_batch is None:
        return "unknown" if result.known == "inconclusive" else "none"
    return f"{'' if result.known == 'exact' else '≥ '}{text_of.count(result.max_batch)}"


def ratio(found: Comparison) -> str:
    """Return ws max ÷ http max, with the sign of what is certain about it; "–" where nothing is."""
    sign = {("exact", "exact"): "", ("open", "exact"): "≥ ", ("inconclusive", "exact"): "≥ "}
    sign |= {("exact", "open"): "≤ ", ("exact", "inconclusive"): "≤ "}
    known = sign.get((found.ws.known, found.http.known))
    return text_of.MISSING if found.ratio is None or known is None else f"{known}{found.ratio:.3g}"


def figures(found: Comparison) -> tuple[str, ...]:
    """Return what is compared at the largest common batch, "ws / http" each, in the order of `AT`."""
    shown: list[str] = []
    for _, field in AT:
        values = [getattr(result, field) for result in found.modes]
        of_success = f"{' / '.join(map(text_of.percent_number, values))} %"
        shown.append(of_success if field == "success" else seconds([values])[0])
    return tuple(shown)


def add_lines(page: Page, sweeps: Iterable[SweepView]) -> None:
    """Add the comparison to a page; nothing where there is only one mode."""
    found = entries(sweeps)
    if not found:
        return
    page.blank()
    page.say(TITLE, bold=True)
    heads, *rows = _aligned(page, [HEADS, *(entry.cells for entry in found)])
    page.verbatim(heads, bold=True)
    test = ""
    for entry, row in zip(found, rows, strict=True):
        if entry.test != test:
            test = entry.test
            page.verbatim(_GAP + cut(page.fit(test), page.width - len(_GAP), left=True))
        page.verbatim(row)
        if entry.batch is not None:
            figures = ", ".join(f"{name} {figure}" for (name, _), figure in zip(AT, entry.figures, strict=True))
            page.say(f"ws / http at batch {entry.batch}: {figures}", indent=8)
        for note in entry.notes:
            page.say(note, indent=8)
    page.say(FOOTNOTE, light=True)


def _aligned(page: Page, rows: list[tuple[str, ...]]) -> list[str]:
    """Return rows as lines, the heads first; where there is no room, names are cut."""
    texts = [[page.fit(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    over = sum(widths) + len(_GAP) * (len(widths) + 1) - page.width
    widths[0] = max(widths[0] - max(over, 0), _SHORTEST_NAME)
    return [
        _GAP * 2
        + _GAP.join(
            f"{cut(cell, width):{'>' if head in RIGHT else '<'}{width}}"
            for head, cell, width in zip(HEADS, row, widths, strict=True)
        )
        for row in texts
    ]
