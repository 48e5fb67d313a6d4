"""The theme all figures share. Imports plotnine: only the process that draws may import this."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import plotnine as p9

from pytest_openenv_scale.reporting.figures.content import (
    DOUBTFUL,
    FAILS,
    GRID,
    GROUND,
    INK,
    MUTED,
    SURFACE,
    Columns,
    FigureContent,
    batch_breaks,
    batch_text,
    frame,
    round_ticks,
    series_styles,
    wrap_label,
)

WIDTH = 9.0
"""Inches; text sizes are chosen for it."""


def figure_frame(
    content: FigureContent, size: tuple[float, float], *, x: str, y: str = "", grid: str = "xy", legend: str = "bottom"
) -> list[Any]:
    """Return title, notes (a line each), the names of the axes, and the theme of a figure of this size in inches.

    `grid` names the axes with lines across the panel.
    """
    caption = "\n".join(line for note in content.notes for line in wrapped_note(note)) or None
    labels = p9.labs(title=content.title, subtitle=content.subtitle or None, caption=caption, x=x, y=y)
    return [labels, _theme(size, grid, legend)]


def _theme(size: tuple[float, float], grid: str, legend: str) -> p9.theme:
    blank, line = p9.element_blank(), p9.element_line(color=GRID, size=0.6)
    paper = p9.element_rect(fill=GROUND, color="none")
    return p9.theme_minimal(base_size=10, base_family="DejaVu Sans") + p9.theme(
        figure_size=size,
        dpi=100,
        text=p9.element_text(color=INK),
        plot_title=p9.element_text(size=13.5, weight="bold", ha="left", margin={"b": 10, "unit": "pt"}),
        plot_subtitle=p9.element_text(size=10, color=MUTED, ha="left", margin={"b": 6, "unit": "pt"}),
        plot_caption=p9.element_text(size=8.5, color=MUTED, ha="left", linespacing=1.35),
        plot_title_position="plot",
        plot_caption_position="plot",
        plot_margin=0.015,
        plot_background=paper,
        panel_background=blank,
        panel_border=blank,
        panel_grid_minor=blank,
        panel_grid_major_x=line if "x" in grid else blank,
        panel_grid_major_y=line if "y" in grid else blank,
        panel_spacing=0.025,
        axis_title=p9.element_text(size=10, color=INK),
        axis_text=p9.element_text(size=9, color=INK),
        axis_ticks=blank,
        axis_line_x=p9.element_line(color=MUTED, size=0.7) if "x" not in grid else blank,
        strip_text=p9.element_text(
            size=9.5,
            weight="bold",
            color=INK,
            ha="left",
            ma="left",
            margin={"t": 9, "b": 5, "unit": "pt"},
        ),
        strip_background=blank,
        legend_position=legend,
        legend_title=blank,
        legend_text=p9.element_text(size=9, color=INK, ha="left", ma="left"),
        legend_key=blank,
        legend_background=blank,
        legend_box_spacing=0.02,
    )


def wrapped_note(note: str, width: int = 120) -> list[str]:
    """Break a note into lines that fit the width of a figure."""
    return textwrap.wrap(note, width, replace_whitespace=False, drop_whitespace=True) or [""]


def text_height(content: FigureContent) -> float:
    """Return how many inches title, subtitle and notes take."""
    lines = sum(len(wrapped_note(note)) for note in content.notes)
    return 0.54 + (0.22 if content.subtitle else 0) + 0.17 * lines


def data_frame(columns: Columns, **order: Iterable[str]) -> pd.DataFrame:
    """Return a frame; `order` gives the order of the values of a column of names."""
    table = pd.DataFrame({name: list(values) for name, values in columns.items()})
    for name, values in order.items():
        table = with_order(table, name, values)
    return table


def renamed_panels(figure: FigureContent, frame: str, names: Mapping[str, str]) -> Columns:
    """Return a frame of a figure with other names of its panels."""
    columns = figure.frames[frame]
    return {**columns, "panel": [names[panel] for panel in columns["panel"]]}


def with_order(table: pd.DataFrame, column: str, values: Iterable[str]) -> pd.DataFrame:
    """Return a frame in which the values of a column have this order."""
    return table.assign(**{column: pd.Categorical(table[column], categories=list(values), ordered=True)})


def infrastructure_scales(names: Sequence[str], *aesthetics: str) -> list[Any]:
    """Return the scales that draw each infrastructure in its own way, for some of: colour, fill, shape, linetype."""
    styles, wrapped_names = series_styles(names), [wrap_label(name, 30) for name in names]
    kinds: dict[str, tuple[Any, str]] = {
        "colour": (p9.scale_colour_manual, "colour"),
        "fill": (p9.scale_fill_manual, "colour"),
        "shape": (p9.scale_shape_manual, "shape"),
        "linetype": (p9.scale_linetype_manual, "line"),
    }
    scales: list[Any] = []
    for aesthetic in aesthetics:
        scale, part = kinds[aesthetic]
        values = {name: getattr(styles[name], part) for name in names}
        # One of its own for each scale: shared, the scales would not be shown as one legend.
        guide: Any = p9.guide_legend(ncol=legend_columns(names))
        scales.append(scale(values, breaks=list(names), labels=wrapped_names, guide=guide))
    return scales


def seconds_ticks(values: Sequence[Any]) -> list[str]:
    """Return durations as an axis names them, in the shortest form: "200 µs", "5 ms", "1.5 s"."""
    texts: list[str] = []
    for value in values:
        size, unit = (1e-6, "µs") if 0 < value < 0.9995e-3 else (1e-3, "ms") if value < 0.9995 else (1.0, "s")
        texts.append(f"{value / size:.4g} {unit}" if value else "0")
    return texts


def time_breaks(limits: tuple[float, float]) -> list[float]:
    """Return round moments that an axis of time names, in the unit of `time_ticks`."""
    seconds, _ = _time_unit(limits[1])
    return [tick * seconds for tick in round_ticks(limits[1] / seconds, 5)]


def time_ticks(values: Sequence[Any]) -> list[str]:
    """Return moments in seconds as an axis of time names them: "40 s", where it is long "20 min" or "3 h"."""
    seconds, unit = _time_unit(max(values, default=0.0))
    return (
        seconds_ticks(values)
        if seconds == 1
        else [f"{value / seconds:.4g} {unit}" if value else "0" for value in values]
    )


def _time_unit(longest: float) -> tuple[int, str]:
    return (3600, "h") if longest >= 3 * 3600 else (60, "min") if longest >= 300 else (1, "s")


def state_layers(points: pd.DataFrame, x: str, y: str, *, size: float = 2.9) -> list[Any]:
    """Return markers that tell what was judged: filled, with a ✕ beside it where a batch fails, hollow in doubt."""
    sure, doubt = points[points["state"] != DOUBTFUL], points[points["state"] == DOUBTFUL]
    failing = points[points["state"] == FAILS]
    mapping = p9.aes(x, y, shape="infrastructure")
    layers: list[Any] = [p9.geom_point(mapping, sure, size=size, stroke=0.3)]
    if len(doubt):
        hollow = {"fill": SURFACE, "size": 0.93 * size, "stroke": 0.9}
        layers.append(p9.geom_point(mapping, doubt, show_legend=not len(sure), **hollow))
    if len(failing):
        # Blanks keep it off the marker, whatever the axes are.
        cross = {"label": "  ✕", "size": 2.6 * size, "fontweight": "bold", "ha": "left", "va": "bottom"}
        layers.append(p9.geom_text(p9.aes(x, y), failing, show_legend=False, **cross))
    return layers


def batch_axis(points: pd.DataFrame, panel_width: float, *, reach: float = 1.0) -> Any:
    """Return a logarithmic axis for the column x with the names of the column batch, `reach` times as long."""
    first, last = points["x"].min(), points["x"].max() * reach
    room = (last / first) ** 0.05 if last > 1.5 * first else 4.0
    return p9.scale_x_continuous(
        trans="log2",
        breaks=batch_breaks(points["batch"], max(int(panel_width / 0.52), 2)),
        # With a single break the libraries below cannot place minor ones.
        minor_breaks=[],
        labels=lambda values: [batch_text(value) for value in values],
        limits=(first / room, last * room),
        expand=(0, 0),
    )


def panel_labels(columns: int) -> Any:
    """Return what breaks the names of panels of which so many stand side by side; other strips stay as they are."""
    width = 92 // columns
    return p9.labeller(panel=lambda name: "\n".join(wrap_label(line, width) for line in name.split("\n")))


_NO_BREAK = re.compile(r" (?=·|s\b)")
"""Where a line does not end: before a dot that parts two facts, and before the unit of a number."""


def two_lines(panel: str, width: int) -> str:
    """Return the name of a cell's panel, lines before the last broken where they are longer than `width` characters."""
    place, line_end, cell = panel.rpartition("\n")
    wrapped = wrap_label(_NO_BREAK.sub("\xa0", place), width) if place else ""
    return f"{wrapped}{line_end}{cell}"


class PanelGrid:
    """Panels side by side, and the size of the figure they make together."""

    def __init__(
        self,
        panels: int,
        legend: Sequence[str] = (),
        *,
        height: float,
        most: int = 2,
        scales: Literal["fixed", "free"] = "fixed",
        strip: float = 0.3,
    ) -> None:
        self.columns = min(panels, most) or 1
        self.rows = -(-panels // self.columns)
        self.panel_width = (WIDTH - 0.8) / self.columns - 0.25
        self._several = panels > 1
        self._height = height
        self._scales: Literal["fixed", "free"] = scales
        self._strip = strip if panels > 1 else 0.0
        self._legend = legend_height(legend)

    def facets(self) -> list[Any]:
        """Return the split into panels; none where there is one."""
        if not self._several:
            return []
        return [p9.facet_wrap("panel", ncol=self.columns, scales=self._scales, labeller=panel_labels(self.columns))]

    def size(self, content: FigureContent) -> tuple[float, float]:
        """Return width and height in inches."""
        return WIDTH, text_height(content) + 0.55 + self.rows * (self._height + self._strip) + self._legend


def legend_height(names: Sequence[str]) -> float:
    """Return how many inches a legend of these names takes below a figure."""
    if not names:
        return 0.0
    columns = legend_columns(names)
    lines = max(wrap_label(name, 30).count("\n") + 1 for name in names)
    return 0.1 + -(-len(names) // columns) * (0.07 + 0.17 * lines)


def legend_columns(names: Sequence[str]) -> int:
    """Return how many of these names stand side by side below a figure."""
    longest = max(len(line) for name in names for line in wrap_label(name, 30).split("\n"))
    return max(min(int((WIDTH - 0.3) / (0.082 * longest + 0.6)), len(names)), 1)


HEADING = 0.85
"""The height of a heading in rows."""


@dataclass(frozen=True)
class RowLayout:
    """The row of each (panel, infrastructure) and panel heading: `positions` and `headings` count down from 0."""

    positions: dict[tuple[str, str], float]
    headings: dict[str, float]

    @classmethod
    def of(cls, figure: FigureContent, table: pd.DataFrame) -> RowLayout:
        """Lay out the rows of a table of a figure; one panel alone has no heading, as the subtitle names it."""
        present = set(zip(table["panel"], table["infrastructure"], strict=True))
        panels, names = figure.facts["panels"], figure.facts["infrastructures"]
        positions: dict[tuple[str, str], float] = {}
        headings: dict[str, float] = {}
        at = 0.0
        for panel in panels:
            if len(panels) > 1:
                at -= 0.15 if headings else -0.05
                headings[panel] = at
                at -= HEADING
            for name in names:
                if (panel, name) in present:
                    positions[panel, name] = at
                    at -= 1.0
        return cls(positions, headings)

    @property
    def rows(self) -> float:
        """The height of the layout, in rows."""
        return self.top - self.bottom

    @property
    def top(self) -> float:
        """The upper end of the axis, in rows."""
        return max([*self.headings.values(), *self.positions.values()]) + 0.55

    @property
    def bottom(self) -> float:
        """The lower end of the axis, in rows."""
        return min(self.positions.values()) - 0.55

    def column(self, table: Any) -> list[float]:
        """Return the position of every row of a frame with the columns panel and infrastructure."""
        pairs = zip(table["panel"].astype(str), table["infrastructure"].astype(str), strict=True)
        return [self.positions[pair] for pair in pairs]

    def layers(self, x: float) -> list[Any]:
        """Return the axis with its names, and the headings from `x` on."""
        axis = p9.scale_y_continuous(
            breaks=list(self.positions.values()),
            labels=[wrap_label(name, 26) for _, name in self.positions],
            limits=(self.bottom, self.top),
            expand=(0, 0),
        )
        if not self.headings:
            return [axis]
        table = data_frame(frame(("x", "y", "text"), [(x, y, panel) for panel, y in self.headings.items()]))
        style: dict[str, Any] = {"size": 9.5, "fontweight": "bold", "ha": "left", "colour": INK}
        return [axis, p9.geom_text(p9.aes("x", "y", label="text"), table, inherit_aes=False, **style)]

    def value_axis(
        self,
        longest: float,
        ticks: Sequence[float],
        labels: Sequence[str],
        *,
        texts: Iterable[str],
        per_sign: float,
        beside: float,
    ) -> Any:
        """Return an axis from 0 up to `longest`, and beyond it for texts of `per_sign` inches and some room beside."""
        share = max(map(len, texts)) * per_sign / self.panel_width
        end = longest * (1 + share / (1 - min(share, 0.6)) + beside)
        return p9.scale_x_continuous(limits=(0, end), breaks=ticks, labels=labels, expand=(0, 0))

    def size(self, content: FigureContent, row: float, legend: float = 0.0) -> tuple[float, float]:
        """Return width and height of the figure in inches, for rows of this height or what their names need."""
        lines = max(wrap_label(name, 26).count("\n") + 1 for _, name in self.positions)
        return WIDTH, text_height(content) + 0.95 + self.rows * max(row, 0.16 * lines + 0.1) + legend

    @property
    def panel_width(self) -> float:
        """The width left of the names, in inches."""
        longest = max(len(line) for _, name in self.positions for line in wrap_label(name, 26).split("\n"))
        return WIDTH - 0.35 - 0.078 * longest
