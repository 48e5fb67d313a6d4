"""Figures of a study: found by functions of it, drawn in processes of their own."""

from __future__ import annotations

from .write import Figure, FiguresError, figure_svgs, write_figures

__all__ = ["Figure", "FiguresError", "figure_svgs", "write_figures"]
