"""How figures are written as files."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

FIGURE_FORMATS = ("svg", "png", "pdf")


@dataclass(frozen=True, slots=True)
class FigureFiles:
    """The formats that figures are written in, of `FIGURE_FORMATS`, and the dots per inch of those in PNG."""

    formats: tuple[str, ...] = ("svg", "png")
    dpi: int = 130


DEFAULT_FIGURES = FigureFiles()


def idle_reason(option: str, reports: Collection[str], formats: Collection[str], report_option: str) -> str | None:
    """Say why figure-formats or dpi would do nothing and what to add; None where it does something.

    `report_option` is where reports are asked for.
    """
    if "figures" not in reports:
        return f"no figures are written; add figures to {report_option}"
    if option == "dpi" and "png" not in formats:
        return "no figure is written as PNG, and others have no dots"
    return None
