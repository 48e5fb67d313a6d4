"""What a figure shows, as plain values, and the colours and markers that are the same in all of them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, product
from math import floor, log2, log10
from typing import Any

from pytest_openenv_scale.analysis.study import FAMILIES, BatchPoint, Study, StudyCurve
from pytest_openenv_scale.config.figures import FigureFiles
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.parsing import parse_arrival
from pytest_openenv_scale.reporting.content.wording import load_words

Columns = Mapping[str, Sequence[Any]]

PASSES, FAILS, DOUBTFUL = "passes", "fails", "inconclusive"
STATE_TEXTS = {PASSES: "passes", FAILS: "fails ✕", DOUBTFUL: "inconclusive ?"}
"""What became of a batch, in the name of its panel."""
BATCH_AXIS = "batch (sessions asked for at once)"
_STATE_SIGNS = {PASSES: "●  passes", FAILS: "✕  fails a limit", DOUBTFUL: "○  inconclusive"}
"""How markers are to be read, the same in every figure."""


@dataclass(frozen=True, slots=True)
class FigureContent:
    """One figure before it is drawn.

    `frames` are tables by name, each a sequence of values per column (seconds and fractions as everywhere); `facts`
    is whatever else the drawing needs. `alt_text` says in words what is to be seen.
    """

    key: str
    title: str
    alt_text: str
    frames: Mapping[str, Columns]
    subtitle: str = ""
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class DrawingRequest:
    """What is to be drawn, in which formats, and where modules are found."""

    path: tuple[str, ...]
    contents: tuple[FigureContent, ...]
    files: FigureFiles


@dataclass(frozen=True, slots=True)
class Picture:
    """One figure as matplotlib writes it, by format."""

    key: str
    files: Mapping[str, bytes]

    @property
    def svg(self) -> str:
        """The picture as SVG."""
        return self.files["svg"].decode()


def frame(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Columns:
    """Turn rows into columns; without rows the columns are empty."""
    records = list(rows)
    return {name: [row[at] for row in records] for at, name in enumerate(columns)}


def figure_of(
    study: Study,
    curves: Iterable[StudyCurve],
    *,
    key: str,
    title: str,
    alt_text: str,
    frames: Mapping[str, Columns],
    notes: Sequence[str],
    more: Sequence[str] = (),
    **facts: Any,
) -> FigureContent:
    """Return a figure of these curves of a study; its facts name their infrastructures and panels.

    `more` stands in the subtitle after the name of a single panel.
    """
    shown = list(curves)
    panels = panels_of(shown)
    facts = {"infrastructures": infrastructures_of(study, shown), "panels": panels, **facts}
    return FigureContent(key, title, alt_text, frames, subtitle_of(panels, *more), tuple(notes), facts)


def point_state(point: BatchPoint) -> str:
    """Return the verdict on a batch: passes, fails or inconclusive."""
    return DOUBTFUL if point.passed is None else PASSES if point.passed else FAILS


def states_note(states: Iterable[str]) -> str:
    """Say how the markers of a figure are to be read, those of them that it has."""
    shown = set(states)
    return "    ".join(sign for state, sign in _STATE_SIGNS.items() if state in shown)


def phase_beyond_waits(curve: StudyCurve) -> str:
    """Return the phase of `CellSummary` that holds latency beyond the waits: total without waits, else overhead."""
    return "total" if curve.wait is None else "overhead"


def panel_of(curve: StudyCurve) -> str:
    """Return the name of the panel a curve stands in, its load: "ws · wait 1 s · think 2 s · steady 60 s"."""
    asked = curve.curve.curve
    # Whoever arrives all at once, or at a rate without an end, is asked for the same: a batch.
    lasts = parse_arrival(asked.arrival).seconds is not None
    return " · ".join(load_words(asked if lasts else replace(asked, arrival="hold")))


def panels_of(curves: Iterable[StudyCurve]) -> list[str]:
    """Return the names of the panels of these curves: ws first, then by wait."""
    keys = {
        (curve.mode != "ws", curve.mode, -1.0 if curve.wait is None else curve.wait, panel_of(curve))
        for curve in curves
    }
    return [panel for *_, panel in sorted(keys)]


def curves_in(study: Study, rows: Iterable[Sequence[Any]]) -> list[StudyCurve]:
    """Return the curves that rows are of, which begin with infrastructure and panel."""
    shown = {(row[0], row[1]) for row in rows}
    return [curve for curve in study.curves if (curve.infrastructure, panel_of(curve)) in shown]


def infrastructures_of(study: Study, curves: Iterable[StudyCurve]) -> list[str]:
    """Return the infrastructures of these curves in the order of the study."""
    measured = {curve.infrastructure for curve in curves}
    return [name for name in study.infrastructures if name in measured]


def subtitle_of(panels: Sequence[str], *more: str) -> str:
    """Return a subtitle: the name of a single panel, which then needs no strip, and `more` texts."""
    return "  ·  ".join([*(panels if len(panels) == 1 else ()), *(text for text in more if text)])


def wrap_label(label: str, width: int = 24) -> str:
    """Break a long label into lines, also one without blanks such as a host name."""
    lines = textwrap.wrap(label, width, break_on_hyphens=True) or [label]
    return "\n".join(lines[:3]) + ("…" if len(lines) > 3 else "")


def names_text(names: Sequence[str]) -> str:
    """Return names joined by commas, those after the eighth as a count."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def batch_breaks(batches: Iterable[int], most: int) -> list[int]:
    """Return the batches an axis names: no more than `most`, ends included, far enough apart on a log scale."""
    distinct = sorted(set(batches))
    if len(distinct) <= 2:
        return distinct
    gap = (log2(distinct[-1]) - log2(distinct[0])) / max(most - 1, 1)
    breaks = [distinct[0]]
    for batch in distinct[1:-1]:
        apart = min(log2(batch / breaks[-1]), log2(distinct[-1] / batch))
        if apart >= gap * 0.7:
            breaks.append(batch)
    return [*breaks, distinct[-1]]


def round_ticks(largest: float, most: int = 6) -> list[float]:
    """Return round numbers from 0 on that an axis up to `largest` names."""
    if largest <= 0:
        return [0.0]
    size = 10 ** floor(log10(largest / most))
    step = next(size * factor for factor in (1, 2, 5, 10, 20) if largest / (size * factor) <= most)
    return [step * at for at in range(int(largest / step) + 1)]


def side_by_side(names: list[str], batches: list[int]) -> dict[str, float]:
    """Return a factor per infrastructure that sets its markers beside the batch, within the gap to the next batch."""
    logs = sorted({log2(batch) for batch in batches})
    gaps = [right - left for left, right in pairwise(logs)]
    total_shift = 0.05 * max(logs[-1] - logs[0], 1.0)
    step = min(total_shift / max(len(names) - 1, 3), 0.5 * min(gaps, default=1.0) / max(len(names), 1))
    return {name: 2 ** ((at - (len(names) - 1) / 2) * step) for at, name in enumerate(names)}


def batch_text(batch: Any) -> str:
    """Return a batch as an axis names it: "512", "16,384"."""
    return formatting.count(round(batch))


INK = "#1f2328"
"""Text, axes and whatever is no data; becomes `currentColor` in HTML."""
MUTED = "#59636e"
"""Text of second rank."""
GRID = "#e3e6ea"
"""Lines behind the data."""
SURFACE = "#fefefe"
"""The inside of hollow markers: the ground they stand on."""
GROUND = "#ffffff"
"""The paper; left out in HTML."""

_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c6d31")
_SHAPES = ("o", "s", "^", "D", "v", "p", "h", "<", ">", "d")
_LINES = ("solid", "dashed", "dashdot", "dotted")

PHASES = {"queue": "#b3b3b3", "connect": "#4f81bd", "reset": "#f2b447", "step": "#7b4173"}
"""The phases of a session in a stack of them."""

BATCHES = ("#472c7a", "#3b518b", "#2c718e", "#21908d", "#27ad81", "#5cc863", "#b8c62b")
"""From the smallest batch to the largest: viridis without its ends, which dark and white grounds swallow."""

HEAT = ("#fff3d6", "#fdd49e", "#fdbb84", "#fc8d59", "#e34a33", "#b30000")
"""From fast to slow, darker and redder: readable without colour too."""


@dataclass(frozen=True, slots=True)
class SeriesStyle:
    """How one infrastructure is drawn: "#rrggbb", a marker and a line style of matplotlib."""

    colour: str
    shape: str
    line: str


def _all_styles() -> list[SeriesStyle]:
    """Return styles, all different: colours first, then other markers and lines for each."""
    rounds = product(range(len(_SHAPES)), range(len(_COLOURS)))
    return [
        SeriesStyle(
            _COLOURS[colour],
            _SHAPES[(colour + shift * 3) % len(_SHAPES)],
            _LINES[shift % len(_LINES)],
        )
        for shift, colour in rounds
    ]


_STYLES = _all_styles()
_FAMILY_STYLES = dict(zip(FAMILIES, _STYLES, strict=False))


def series_styles(labels: Sequence[str]) -> Mapping[str, SeriesStyle]:
    """Return how each infrastructure is drawn, in the order of the labels.

    The labels that targets have by themselves look the same in every report, and so does the first variant of one
    ("hf-spaces (cpu-basic)") where the label itself is not among them; others take what is free, in order.
    """
    styles = {label: _FAMILY_STYLES[label] for label in labels if label in _FAMILY_STYLES}
    for label in labels:
        own = next((style for name, style in _FAMILY_STYLES.items() if label.startswith(name)), None)
        if label not in styles and own is not None and own not in styles.values():
            styles[label] = own
    free = [style for style in _STYLES if style not in styles.values()]
    others = [label for label in labels if label not in styles]
    styles |= {label: free[at % len(free)] for at, label in enumerate(others)}
    return {label: styles[label] for label in labels}


def batch_colours(count: int) -> list[str]:
    """Return `count` colours from the smallest batch to the largest, evenly spread."""
    return [_interpolated(BATCHES, at / (count - 1) if count > 1 else 0.5) for at in range(count)]


def heat_colour(share: float) -> str:
    """Return the colour of a value that lies at `share` between the fastest (0) and the slowest (1)."""
    return _interpolated(HEAT, min(max(share, 0.0), 1.0))


def _interpolated(colours: Sequence[str], share: float) -> str:
    position = share * (len(colours) - 1)
    low = min(int(position), len(colours) - 2)
    pairs = zip(_rgb(colours[low]), _rgb(colours[low + 1]), strict=True)
    return "#" + "".join(f"{round(first + (second - first) * (position - low)):02x}" for first, second in pairs)


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def is_dark(colour: str) -> bool:
    """Say whether white text reads better on this colour than black (relative luminance after WCAG 2)."""
    red, green, blue = (part / 3294.6 if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in _rgb(colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.179
