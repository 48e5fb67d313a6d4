"""The SVG of matplotlib as a file of its own and as a part of an HTML page."""

from __future__ import annotations

import re
from html import escape

from . import palette

_PROLOG = re.compile(r"^.*?(?=<svg )", re.DOTALL)
_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)
_STYLE = re.compile(r"\s*<defs>\s*<style[^>]*>.*?</style>\s*</defs>", re.DOTALL)
_OPENING = re.compile(r'<svg [^>]*viewBox="0 0 ([\d.]+) ([\d.]+)"[^>]*>')
_FONT = re.compile(r"(font-family: |font: [^;\"]*?(?=')|px )('DejaVu Sans'[^;\"]*)")
_ID = re.compile(r'(\bid="|xlink:href="#|url\(#)([\w.\-]+)')
_NUMBERS = re.compile(r'(?<= )(?:d|x|y|transform)="[^"]*"')
_DIGITS = re.compile(r"(\.\d\d)\d+")
_GROUND = re.compile(rf"fill: {palette.GROUND}(?![0-9a-f])")

_FAMILY = "'DejaVu Sans', Verdana, sans-serif"
_LINES = "stroke-linejoin: round; stroke-linecap: butt"


def for_file(svg: str, alt_text: str) -> str:
    """Return an SVG that stands alone: on paper, without a date or anything outside."""
    return f'<?xml version="1.0" encoding="utf-8"?>\n{_bare(svg, alt_text, "figure-", _FAMILY)}'


def for_html(svg: str, key: str, alt_text: str) -> str:
    """Return an SVG for a page: no ground of its own, text and lines in the colour of the text around it.

    The page may set `--figure-surface` (what hollow markers stand on) and `--figure-font`.
    """
    family = f"var(--figure-font, {_FAMILY})"
    page = _bare(svg, alt_text, f"figure-{key}-", family)
    page = _GROUND.sub("fill: none", page)
    page = page.replace(f"stroke: {palette.GROUND}", "stroke: none")
    page = page.replace(palette.SURFACE, "var(--figure-surface, Canvas)")
    page = page.replace(f"fill: {palette.MUTED}", "fill: currentColor; fill-opacity: 0.78")
    page = page.replace(f"stroke: {palette.GRID}", "stroke: currentColor; stroke-opacity: 0.14")
    page = page.replace(f"fill: {palette.GRID}", "fill: currentColor; fill-opacity: 0.14")
    return page.replace(palette.MUTED, "currentColor").replace(palette.INK, "currentColor")


def _bare(svg: str, alt_text: str, prefix: str, family: str) -> str:
    """Return the drawing itself: what it shows in words, ids of its own, a width that follows the page's."""
    bare = _STYLE.sub("", _METADATA.sub("", _PROLOG.sub("", svg, count=1)), count=1)
    bare = _ID.sub(rf"\g<1>{prefix}\g<2>", bare)
    bare = _FONT.sub(lambda found: found[1] + family, bare)
    # A hundredth of a point is finer than any screen or paper.
    bare = _NUMBERS.sub(lambda found: _DIGITS.sub(r"\1", found[0]), bare)
    label = f"{prefix}title"

    def opening(found: re.Match[str]) -> str:
        width, height = found[1], found[2]
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" xml:space="preserve"'
            f' viewBox="0 0 {width} {height}" width="100%" style="max-width: {float(width) * 4 / 3:.0f}px; {_LINES}"'
            f' role="img" aria-labelledby="{label}">\n <title id="{label}">{escape(alt_text)}</title>'
        )

    return _OPENING.sub(opening, bare, count=1)
