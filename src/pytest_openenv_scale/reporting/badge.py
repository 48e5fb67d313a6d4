"""A badge for a README: what a curve holds, in the colour of its verdict, as SVG or as shields.io reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType

from pytest_openenv_scale.analysis.study import StudyCurve
from pytest_openenv_scale.results.outcome import Outcome

from .content.wording import holds_text
from .templating import template_environment

_COLOURS: Mapping[Outcome, str] = MappingProxyType(
    {Outcome.MET: "#0b6238", Outcome.MISSED: "#a01c17", Outcome.INCONCLUSIVE: "#6f4800"}
)
"""Those of the HTML report: white text is readable on each of them."""

_PADDING = 6
"""Pixels on either side of a text."""


def badge_svg(curve: StudyCurve, label: str) -> str:
    """Return the badge as SVG of ASCII characters, which refers to nothing outside; `label` is on the left."""
    message = holds_text(curve)
    label_width, message_width = _text_width(label), _text_width(message)
    split = label_width + 2 * _PADDING
    text = (
        template_environment("pytest_openenv_scale.reporting")
        .get_template("badge.svg.j2")
        .render(
            label=label,
            message=message,
            colour=_COLOURS[curve.verdict.outcome],
            label_width=label_width,
            message_width=message_width,
            split=split,
            width=split + message_width + 2 * _PADDING,
        )
    )
    return text.encode("ascii", "xmlcharrefreplace").decode() + "\n"


def badge_json(curve: StudyCurve, label: str) -> str:
    """Return what an endpoint of https://shields.io/badges/endpoint-badge answers, as JSON text."""
    colour = _COLOURS[curve.verdict.outcome]
    return json.dumps({"schemaVersion": 1, "label": label, "message": holds_text(curve), "color": colour}) + "\n"


_NARROW, _WIDE = frozenset(" fijlrtI.,:;!|'()[]/-·"), frozenset("mwMWGOQ@%&≥")
_WIDTHS = (4, 7, 10)


def _text_width(text: str) -> int:
    """Return about how many pixels a text takes in Verdana of 11 pixels; viewers fit it into these exactly."""
    narrow, usual, wide = _WIDTHS
    return sum(narrow if letter in _NARROW else wide if letter in _WIDE else usual for letter in text)
