"""Rows under headings: one row per infrastructure, one heading per mode and wait, in a single panel.

A row takes the same height everywhere and what was not measured takes none, which panels side by side cannot do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .content import Content, frame, wrapped

HEADING = 0.85
"""The height of a heading in rows."""


@dataclass(frozen=True)
class Stack:
    """Where each (panel, infrastructure) stands: `places` and `headings` count rows downwards from 0."""

    places: dict[tuple[str, str], float]
    headings: dict[str, float]

    @classmethod
    def of(cls, found: Iterable[tuple[str, str]], panels: Sequence[str], names: Sequence[str]) -> Stack:
        """Lay out what was measured; one panel alone has no heading, as the subtitle names it."""
        there = set(found)
        places: dict[tuple[str, str], float] = {}
        headings: dict[str, float] = {}
        at = 0.0
        for panel in panels:
            if len(panels) > 1:
                at -= 0.15 if headings else -0.05
                headings[panel] = at
                at -= HEADING
            for name in names:
                if (panel, name) in there:
                    places[panel, name] = at
                    at -= 1.0
        return cls(places, headings)

    @property
    def rows(self) -> float:
        """The height of it all, in rows."""
        return self.top - self.bottom

    @property
    def top(self) -> float:
        """Where the axis ends above."""
        return max([*self.headings.values(), *self.places.values()]) + 0.55

    @property
    def bottom(self) -> float:
        """Where the axis ends below."""
        return min(self.places.values()) - 0.55

    def column(self, table: Any) -> list[float]:
        """Return the place of every row of a frame with the columns panel and infrastructure."""
        pairs = zip(table["panel"].astype(str), table["infrastructure"].astype(str), strict=True)
        return [self.places[pair] for pair in pairs]

    def layers(self, x: float) -> list[Any]:
        """Return the axis with its names, and the headings from `x` on."""
        import plotnine as p9

        from .palette import INK
        from .theme import data

        axis = p9.scale_y_continuous(
            breaks=list(self.places.values()),
            labels=[wrapped(name, 26) for _, name in self.places],
            limits=(self.bottom, self.top),
            expand=(0, 0),
        )
        if not self.headings:
            return [axis]
        table = data(frame(("x", "y", "text"), [(x, y, panel) for panel, y in self.headings.items()]))
        style: dict[str, Any] = {"size": 9.5, "fontweight": "bold", "ha": "left", "colour": INK}
        return [axis, p9.geom_text(p9.aes("x", "y", label="text"), table, inherit_aes=False, **style)]

    def size(self, shown: Content, row: float, legend: float = 0.0) -> tuple[float, float]:
        """Return width and height of the figure in inches, for rows of this height or what their names need."""
        from .theme import WIDTH, note_height

        lines = max(wrapped(name, 26).count("\n") + 1 for _, name in self.places)
        return WIDTH, note_height(shown) + 0.95 + self.rows * max(row, 0.16 * lines + 0.1) + legend

    @property
    def panel_width(self) -> float:
        """The width left of the names, in inches."""
        from .theme import WIDTH

        longest = max(len(line) for _, name in self.places for line in wrapped(name, 26).split("\n"))
        return WIDTH - 0.35 - 0.078 * longest
