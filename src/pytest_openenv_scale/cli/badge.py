"""`openenv-scale badge`: what a stored run holds, as a picture for a README."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_openenv_scale.results.location import RUN_NAMES

from .console import PROGRAM, add_results, named_run
from .curves import add_curve_selection, select_curves

if TYPE_CHECKING:
    from pytest_openenv_scale.analysis.study import StudyCurve


def add_badge(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("path", nargs="?", default="latest", metavar="RUN", help=f"{RUN_NAMES} (default: latest)")
    add_results(parser)
    add_curve_selection(parser)
    parser.add_argument("--mode", choices=("ws", "http"), help="only this protocol")
    parser.add_argument("--wait", metavar="TIME", help="only this wait")
    parser.add_argument("--label", default="openenv", metavar="TEXT", help="what stands on the left (default: openenv)")
    parser.add_argument(
        "--format", choices=("svg", "json"), default="svg", help="json is what shields.io endpoints read (default: svg)"
    )
    parser.add_argument("--output", default="-", metavar="FILE", help="write there (default: -, standard output)")


def run_badge(arguments: argparse.Namespace) -> int:
    """Write a badge that says how many sessions a stored run holds, in the colour of the verdict.

    Of several curves that are selected it is the one of the smallest max batch, which is named on standard error. The
    exit code does not tell the verdict.
    """
    from pytest_openenv_scale.analysis.run import load_run
    from pytest_openenv_scale.analysis.study import smallest_max_batch, study_of
    from pytest_openenv_scale.core.files import replace_file
    from pytest_openenv_scale.reporting.badge import badge_json, badge_svg
    from pytest_openenv_scale.reporting.content.wording import curve_heading

    run = load_run(named_run(arguments.path, arguments))
    curves = _select(study_of(run).curves, arguments)
    curve = smallest_max_batch(curves)
    if len(curves) > 1:
        options = "--test, --infrastructure, --mode and --wait select others"
        note = f"of {len(curves)} curves the smallest max batch: {curve_heading(curve)}; {options}"
        print(f"{PROGRAM} badge: {note}", file=sys.stderr)
    badge = (badge_json if arguments.format == "json" else badge_svg)(curve, arguments.label)
    if arguments.output == "-":
        sys.stdout.write(badge)
    else:
        print(f"written: {replace_file(Path(arguments.output), badge)}")
    return 0


def _select(curves: tuple[StudyCurve, ...], arguments: argparse.Namespace) -> list[StudyCurve]:
    from pytest_openenv_scale.core.errors import RunError
    from pytest_openenv_scale.core.parsing import format_number, parse_seconds

    if not curves:
        raise RunError(f"the run {arguments.path} has no max batch to show: it measured no batches")
    wait = None if arguments.wait is None else parse_seconds(arguments.wait, what="--wait")
    named = select_curves(curves, arguments)
    selected = [
        curve for curve in named if arguments.mode in (None, curve.mode) and (wait is None or curve.wait == wait)
    ]
    if not selected:
        loads = (
            curve.mode if curve.wait is None else f"{curve.mode} at {format_number(curve.wait)} s" for curve in named
        )
        raise RunError(f"no curve is left to show; there are: {', '.join(dict.fromkeys(loads))}")
    return selected
