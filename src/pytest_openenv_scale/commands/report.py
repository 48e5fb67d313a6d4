"""`openenv-scale report`: stored runs, reported again."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .console import complain, show, width

if TYPE_CHECKING:
    from pytest_openenv_scale.core.run import Run
    from pytest_openenv_scale.core.slo import Slo

HELP = "report stored runs again"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("runs", nargs="*", metavar="RUN", help="directory or id of a run (default: the latest)")
    parser.add_argument("--all", action="store_true", help="every run in the results directory")
    parser.add_argument("--results", type=Path, default=Path("openenv-results"), metavar="DIR", help="where runs are")
    parser.add_argument(
        "--slo",
        action="append",
        default=[],
        metavar="LIMIT",
        help="judge by this limit as well, for example total_p99<=2s; the run itself is left as it is; repeatable",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="write the reports there, not into the run")


def run(given: argparse.Namespace) -> int:
    """Print stored runs and rebuild their reports from the rows; the exit code does not tell the verdict."""
    from pytest_openenv_scale.core.grammar import GrammarError
    from pytest_openenv_scale.core.run import RunError
    from pytest_openenv_scale.core.slo import Slo, merge, parse_slo_expression

    try:
        # The last expression wins where a limit is named twice.
        limits = merge(*(Slo((parse_slo_expression(text),)) for text in reversed(given.slo)))
        paths = _run_paths(given)
    except (GrammarError, RunError) as error:
        return complain("report", str(error))
    code = 0
    for path in paths:
        try:
            _report_run(path, limits, given.output, several=len(paths) > 1)
        except RunError as error:
            code = complain("report", str(error))
    return code


def _run_paths(given: argparse.Namespace) -> list[Path]:
    from pytest_openenv_scale.core.manifest import run_paths
    from pytest_openenv_scale.core.run import RunError, latest_run

    if given.all and given.runs:
        raise RunError("--all and a run are given; write one of them")
    if given.all:
        found = run_paths(given.results)
        return found or [latest_run(given.results)]
    return [_run_path(name, given.results) for name in given.runs] or [latest_run(given.results)]


def _run_path(name: str, results: Path) -> Path:
    path = Path(name)
    return path if path.exists() or not (results / name).is_dir() else results / name


def _report_run(path: Path, limits: Slo, output: Path | None, *, several: bool) -> None:
    from pytest_openenv_scale.core.run import RunError, load_run
    from pytest_openenv_scale.reports import run_lines, write_reports

    run = load_run(path)
    if limits.limits:
        run = _judged_again(run, limits)
    lines = run_lines(run, width=width(), encoding=sys.stdout.encoding)
    show(lines)
    if output is not None:
        folder = output / run.run_id if several else output
        _told(write_reports(run, directory=folder))
    elif not limits.limits:
        try:
            _told(write_reports(run))
        except RunError as error:
            # What was asked for stands on the terminal; a run on a read-only disk stays as it is.
            complain("report", str(error))


def _judged_again(run: Run, limits: Slo) -> Run:
    """Return the run with these limits added to those it was judged by; they win over limits of the same name."""
    from dataclasses import replace

    from pytest_openenv_scale.core.slo import merge
    from pytest_openenv_scale.core.view import view_sweep

    views = [
        view_sweep(
            replace(view.record, slos=tuple(merge(limits, slo) for slo in view.record.slos)),
            view.summaries,
        )
        for view in run.sweeps
    ]
    return replace(run, sweeps=tuple(views))


def _told(paths: Sequence[Path]) -> None:
    print(f"written: {', '.join(map(str, paths))}\n")
