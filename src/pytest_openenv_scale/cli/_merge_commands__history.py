"""`openenv-scale history`: max batch, or another figure, over the runs there are."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .console import USAGE_ERROR, complain, show, width

if TYPE_CHECKING:
    from pytest_openenv_scale.core.history import CurveHistory
    from pytest_openenv_scale.core.run import Run

HELP = "draw max batch over the stored runs"

_FIGURES = (".svg", ".png")


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--results", type=Path, default=Path("openenv-results"), metavar="DIR", help="where runs are")
    parser.add_argument("--test", metavar="TEXT", help="only tests whose node id has this in it")
    parser.add_argument("--infrastructure", metavar="LABEL", help="only this infrastructure")
    parser.add_argument("--metric", default="max_batch", metavar="NAME", help="what to draw (default: max_batch)")
    parser.add_argument("--batch", type=int, metavar="N", help="take a metric of a batch at this one")
    parser.add_argument("--last", type=int, default=50, metavar="N", help="only so many runs (default: 50)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="draw a figure as well: FILE.svg or FILE.png")


def run(given: argparse.Namespace) -> int:
    """Show a figure of every curve over the runs, the oldest first; the exit code does not tell a verdict."""
    from pytest_openenv_scale.core.extras import cannot_draw
    from pytest_openenv_scale.core.fail_on import METRICS
    from pytest_openenv_scale.core.grammar import nearest, shown
    from pytest_openenv_scale.core.history import histories
    from pytest_openenv_scale.core.run import RunError
    from pytest_openenv_scale.reports.history import history_lines

    if given.metric not in METRICS:
        return complain("history", f"there is no metric {shown(given.metric)}{nearest(given.metric, METRICS)}")
    if given.last < 1:
        return complain("history", f"--last must be at least 1, got {given.last}")
    if given.batch is not None and given.batch < 1:
        return complain("history", f"--batch must be at least 1, got {given.batch}")
    if given.output is not None and given.output.suffix not in _FIGURES:
        return complain("history", f"--output: write FILE.svg or FILE.png, got {shown(str(given.output))}")
    if given.output is not None and (problem := cannot_draw()):
        return complain("history", f"--output: {problem}")
    problems: list[str] = []
    try:
        found = histories(_runs(given, problems), given.metric, batch=given.batch)
        curves = _selected(found, given)
    except RunError as error:
        return complain("history", str(error))
    show(history_lines(curves, width=width(), encoding=sys.stdout.encoding))
    for problem in problems:
        complain("history", problem)
    drawn = 0 if given.output is None else _draw(curves, given.output)
    return USAGE_ERROR if problems else drawn


def _runs(given: argparse.Namespace, problems: list[str]) -> list[Run]:
    """Read the runs, the oldest first; one that cannot be read is told and left out."""
    from pytest_openenv_scale.core.manifest import run_paths
    from pytest_openenv_scale.core.run import RunError, load_run

    found: list[Run] = []
    for path in run_paths(given.results)[-given.last :]:
        try:
            found.append(load_run(path))
        except RunError as error:
            problems.append(str(error))
    if not found:
        raise RunError(problems[0] if problems else f"there is no run in {given.results}")
    return sorted(found, key=lambda run: run.record.started_at)


def _selected(curves: tuple[CurveHistory, ...], given: argparse.Namespace) -> list[CurveHistory]:
    from pytest_openenv_scale.core.grammar import nearest, shown
    from pytest_openenv_scale.core.run import RunError

    labels = list(dict.fromkeys(curve.infrastructure for curve in curves))
    if given.infrastructure is not None and given.infrastructure not in labels:
        text = f"no run measured an infrastructure {shown(given.infrastructure)}"
        raise RunError(f"{text}{nearest(given.infrastructure, labels)}" if labels else text)
    found = [
        curve
        for curve in curves
        if (given.test or "") in curve.test and given.infrastructure in (None, curve.infrastructure)
    ]
    if not found:
        tests = ", ".join(dict.fromkeys(curve.test for curve in curves)) or "none"
        raise RunError(f"no curve is left to show; the tests of these runs are: {tests}")
    return found


def _draw(curves: list[CurveHistory], path: Path) -> int:
    from pytest_openenv_scale.reports.figures.history import write_history

    try:
        write_history(curves, path)
    except OSError as error:
        return complain("history", f"the figure cannot be written: {path}: {error.strerror}")
    print(f"written: {path}")
    return 0
