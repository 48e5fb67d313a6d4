"""Which curves of stored runs a command is about."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Protocol, TypeVar


class _Named(Protocol):
    """A curve, by what it is selected."""

    @property
    def test(self) -> str: ...

    @property
    def infrastructure(self) -> str: ...


Named = TypeVar("Named", bound=_Named)


def add_curve_selection(parser: argparse.ArgumentParser) -> None:
    """Declare the options that select curves."""
    parser.add_argument("--test", metavar="TEXT", help="only tests whose node id has this in it")
    parser.add_argument("--infrastructure", metavar="LABEL", help="only this infrastructure")


def select_curves(curves: Iterable[Named], arguments: argparse.Namespace) -> list[Named]:
    """Return the curves that the options select.

    Raises:
        RunError: none is left, or no run measured that infrastructure; one line with what there is.
    """
    from pytest_openenv_scale.core.errors import RunError
    from pytest_openenv_scale.core.parsing import short_repr, suggestion

    all_curves = list(curves)
    labels = list(dict.fromkeys(curve.infrastructure for curve in all_curves))
    if arguments.infrastructure is not None and arguments.infrastructure not in labels:
        text = f"no run measured an infrastructure {short_repr(arguments.infrastructure)}"
        raise RunError(f"{text}{suggestion(arguments.infrastructure, labels)}" if labels else text)
    selected = [
        curve
        for curve in all_curves
        if (arguments.test or "") in curve.test and arguments.infrastructure in (None, curve.infrastructure)
    ]
    if not selected:
        tests = ", ".join(dict.fromkeys(curve.test for curve in all_curves)) or "none"
        raise RunError(f"no curve is left to show; the tests of these runs are: {tests}")
    return selected
