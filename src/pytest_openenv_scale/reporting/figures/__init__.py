"""Figures of a study: found by functions of it, drawn in processes of their own."""

from __future__ import annotations

from .write import FiguresError, FigureSvg, figure_svgs, write_figures

__all__ = ["FigureSvg", "FiguresError", "figure_svgs", "write_figures"]
