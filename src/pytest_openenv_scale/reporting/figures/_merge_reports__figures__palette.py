"""One colour, marker and line per infrastructure, the same in every figure and every report.

The colours are those of Okabe and Ito ("Color Universal Design", 2008) without black and yellow, which vanish on dark
and on white paper, and with a brown: under any one colour blindness no two of them look alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from pytest_openenv_scale.reports.study_labels import FAMILIES

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
class Look:
    """How one infrastructure is drawn: "#rrggbb", a marker and a line style of matplotlib."""

    colour: str
    shape: str
    line: str


def _all_looks() -> list[Look]:
    """Return looks no two of which are the same: colours first, then other markers and lines for each."""
    rounds = product(range(len(_SHAPES)), range(len(_COLOURS)))
    return [
        Look(
            _COLOURS[colour],
            _SHAPES[(colour + shift * 3) % len(_SHAPES)],
            _LINES[shift % len(_LINES)],
        )
        for shift, colour in rounds
    ]


_LOOKS = _all_looks()
_KNOWN = dict(zip(FAMILIES, _LOOKS, strict=False))


def looks(labels: Sequence[str]) -> Mapping[str, Look]:
    """Return how each infrastructure is drawn, in the order of the labels.

    The labels that targets have by themselves look the same in every report, and so does the first variant of one
    ("hf-spaces (cpu-basic)") where the label itself is not among them; others take what is free, in order.
    """
    found = {label: _KNOWN[label] for label in labels if label in _KNOWN}
    for label in labels:
        own = next((look for name, look in _KNOWN.items() if label.startswith(name)), None)
        if label not in found and own is not None and own not in found.values():
            found[label] = own
    free = [look for look in _LOOKS if look not in found.values()]
    others = [label for label in labels if label not in found]
    found |= {label: free[at % len(free)] for at, label in enumerate(others)}
    return {label: found[label] for label in labels}


def shades(count: int) -> list[str]:
    """Return `count` colours from the smallest batch to the largest, evenly spread."""
    return [_between(BATCHES, at / (count - 1) if count > 1 else 0.5) for at in range(count)]


def heat(share: float) -> str:
    """Return the colour of a value whose place between the fastest (0) and the slowest (1) is `share`."""
    return _between(HEAT, min(max(share, 0.0), 1.0))


def _between(colours: Sequence[str], share: float) -> str:
    place = share * (len(colours) - 1)
    low = min(int(place), len(colours) - 2)
    pairs = zip(_parts(colours[low]), _parts(colours[low + 1]), strict=True)
    return "#" + "".join(f"{round(first + (second - first) * (place - low)):02x}" for first, second in pairs)


def _parts(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def is_dark(colour: str) -> bool:
    """Say whether white text reads better on this colour than black (relative luminance after WCAG 2)."""
    red, green, blue = (
        part / 3294.6 if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in _parts(colour)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.179
