"""`openenv-scale report`: stored runs, reported again, each by itself or joined into one study."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .console import complain, show, width
from .runs import run_path

if TYPE_CHECKING:
    from pytest_openenv_scale.core.run import Run
    from pytest_openenv_scale.core.slo import Slo

HELP = "report stored runs again"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("runs", nargs="*", metavar="RUN", help="directory or id of a run, or latest (the default)")
    parser.add_argument("--all", action="store_true", help="every run in the results directory")
    parser.add_argument("--results", type=Path, default=Path("openenv-results"), metavar="DIR", help="where runs are")
    parser.add_argument(
        "--slo",
        action="append",
        default=[],
        metavar="LIMIT",
        help="judge by this limit as well, for example total_p99<=2s; the run itself is left as it is; repeatable",
    )
    parser.add_argument(
        "--formats", metavar="LIST", help="what to write, of md, html, figures and log; none only prints (default: md)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="write there, not into the run; several runs become one study"
    )


def run(given: argparse.Namespace) -> int:
    """Print stored runs and rebuild their reports from the rows; the exit code does not tell the verdict.

    Each run's reports are written into its own directory. With --output they go there, and several runs are
    joined into one report of a study.
    """
    from pytest_openenv_scale.core.extras import cannot_draw
    from pytest_openenv_scale.core.grammar import GrammarError
    from pytest_openenv_scale.core.run import RunError
    from pytest_openenv_scale.core.slo import Slo, merge, parse_slo_expression
    from pytest_openenv_scale.option_values import parse_reports

    try:
        # The last expression wins where a limit is named twice.
        limits = merge(*(Slo((parse_slo_expression(text),)) for text in reversed(given.slo)))
        formats = parse_reports(given.formats or "md")
        if "figures" in formats and (problem := cannot_draw()):
            raise RunError(f"--formats: {problem}")
        paths = _run_paths(given)
        if limits.limits and given.formats and given.output is None:
            raise RunError("a run's own reports stay with its own limits; write those by --slo with --output DIR")
    except (GrammarError, RunError) as error:
        return complain("report", str(error))
    if given.output is not None and len(paths) > 1:
        return _report_study(paths, limits, formats, given.output)
    code = 0
    for path in paths:
        try:
            _report_run(path, limits, formats, given.output, asked=given.formats is not None)
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
    return [run_path(name, given.results) for name in given.runs] or [latest_run(given.results)]


def _report_run(path: Path, limits: Slo, formats: tuple[str, ...], output: Path | None, *, asked: bool) -> None:
    from pytest_openenv_scale.core.run import RunError
    from pytest_openenv_scale.reports import run_lines, write_reports

    run = _load(path, limits)
    show(run_lines(run, width=width(), encoding=sys.stdout.encoding))
    if output is not None:
        _told(write_reports(run, formats=formats, directory=output))
    elif not limits.limits:
        try:
            _told(write_reports(run, formats=formats))
        except RunError as error:
            if asked:
                raise
            # What was asked for stands on the terminal; a run on a read-only disk stays as it is.
            complain("report", str(error))


def _report_study(paths: Sequence[Path], limits: Slo, formats: tuple[str, ...], output: Path) -> int:
    """Join the runs that can be read; the others are told and make the exit code 2."""
    from pytest_openenv_scale.core.run import RunError
    from pytest_openenv_scale.reports import join, study_lines, write_reports

    code = 0
    runs: list[Run] = []
    for path in paths:
        try:
            runs.append(_load(path, limits))
        except RunError as error:
            code = complain("report", str(error))
    if not runs:
        return code
    study = join(runs)
    show(study_lines(study, width=width(), encoding=sys.stdout.encoding))
    try:
        _told(write_reports(study, formats=formats, directory=output))
    except RunError as error:
        return complain("report", str(error))
    return code


def _load(path: Path, limits: Slo) -> Run:
    """Read a run; these limits are added to those it was judged by, and win over limits of the same name."""
    from dataclasses import replace

    from pytest_openenv_scale.core.run import load_run
    from pytest_openenv_scale.core.slo import merge
    from pytest_openenv_scale.core.view import view_sweep

    run = load_run(path)
    if not limits.limits:
        return run
    views = [
        view_sweep(
            replace(view.record, slos=tuple(merge(limits, slo) for slo in view.record.slos)),
            view.summaries,
        )
        for view in run.sweeps
    ]
    return replace(run, sweeps=tuple(views))


def _told(paths: Sequence[Path]) -> None:
    if paths:
        print(f"written: {', '.join(map(str, paths))}\n")
