"""`openenv-scale report`, `compare`, `history`, `import` and `export`: stored runs, and older result files."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .console import USAGE_ERROR, complain, run_path, show, width

if TYPE_CHECKING:
    from pytest_openenv_scale.analysis.history import CurveHistory
    from pytest_openenv_scale.analysis.run import Run
    from pytest_openenv_scale.config.limits import Slo
    from pytest_openenv_scale.results.comparison import Comparison

REPORT_HELP = "report stored runs again"


def add_report(parser: argparse.ArgumentParser) -> None:
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


def run_report(given: argparse.Namespace) -> int:
    """Print stored runs and rebuild their reports from the rows; the exit code does not tell the verdict.

    Each run's reports are written into its own directory. With --output they go there, and several runs are
    joined into one report of a study.
    """
    from pytest_openenv_scale.config.limits import Slo, merge, parse_slo_expression
    from pytest_openenv_scale.config.values import parse_reports
    from pytest_openenv_scale.core.errors import GrammarError, RunError
    from pytest_openenv_scale.core.system import cannot_draw

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
    from pytest_openenv_scale.core.errors import RunError
    from pytest_openenv_scale.results.manifest import latest_run, run_paths

    if given.all and given.runs:
        raise RunError("--all and a run are given; write one of them")
    if given.all:
        found = run_paths(given.results)
        return found or [latest_run(given.results)]
    return [run_path(name, given.results) for name in given.runs] or [latest_run(given.results)]


def _report_run(path: Path, limits: Slo, formats: tuple[str, ...], output: Path | None, *, asked: bool) -> None:
    from pytest_openenv_scale.core.errors import RunError
    from pytest_openenv_scale.reporting import run_lines, write_reports

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
    from pytest_openenv_scale.core.errors import RunError
    from pytest_openenv_scale.reporting import join_runs, study_lines, write_reports

    code = 0
    runs: list[Run] = []
    for path in paths:
        try:
            runs.append(_load(path, limits))
        except RunError as error:
            code = complain("report", str(error))
    if not runs:
        return code
    study = join_runs(runs)
    show(study_lines(study, width=width(), encoding=sys.stdout.encoding))
    try:
        _told(write_reports(study, formats=formats, directory=output))
    except RunError as error:
        return complain("report", str(error))
    return code


def _load(path: Path, limits: Slo) -> Run:
    """Read a run; these limits are added to those it was judged by, and win over limits of the same name."""
    from dataclasses import replace

    from pytest_openenv_scale.analysis.run import load_run
    from pytest_openenv_scale.config.limits import merge
    from pytest_openenv_scale.verdict.sweep import view_sweep

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


COMPARE_HELP = "compare a run with a baseline"

EXIT_CODES = {"held": 0, "shown": 0, "regressed": 1, "inconclusive": 3}
"""By outcome; 2 is bad input."""

_RUN = "a path, a run id, latest, or a git commit, branch or tag"


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("baseline", metavar="A", help=f"the baseline: {_RUN}")
    parser.add_argument("now", metavar="B", help="the newer run, named in the same way")
    parser.add_argument(
        "--fail-on",
        action="append",
        default=[],
        metavar="EXPR",
        help="fail where a figure got worse by more than this, such as max_batch:-10%%,total_p99:+200ms; repeatable",
    )
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="let curves and batches of the baseline be missing from the newer run",
    )
    parser.add_argument("--format", choices=("text", "md", "json"), default="text", help="(default: text)")
    parser.add_argument("--results", type=Path, default=Path("openenv-results"), metavar="DIR", help="where runs are")


def run_compare(given: argparse.Namespace) -> int:
    """Compare run B with the baseline A, curve by curve.

    A figure regresses where it is beyond --fail-on and outside the baseline's range over repetitions. Exit code 0
    where nothing regressed (or nothing is judged, without --fail-on), 1 for a regression, 2 for bad input,
    3 where it is inconclusive: a curve of A that B lacks, runs that measured different things, a figure in doubt.
    """
    from pytest_openenv_scale.analysis.compare import compare_runs
    from pytest_openenv_scale.analysis.run import load_run
    from pytest_openenv_scale.config.limits import parse_fail_on, parse_reference
    from pytest_openenv_scale.core.errors import GrammarError, RunError
    from pytest_openenv_scale.results.manifest import find_run

    try:
        fail_on = parse_fail_on(given.fail_on)
        paths = [find_run(parse_reference(name, Path.cwd()), given.results) for name in (given.baseline, given.now)]
        if paths[0].resolve() == paths[1].resolve():
            return complain("compare", f"A and B are the same run, {paths[0]}")
        baseline, now = map(load_run, paths)
    except (GrammarError, RunError) as error:
        return complain("compare", str(error))
    named = given.baseline if given.baseline not in map(str, paths) else None
    found = compare_runs(baseline, now, fail_on, reference=named, allow_missing=given.allow_missing)
    _print(found, given.format)
    return EXIT_CODES[found.outcome]


def _print(found: Comparison, form: str) -> None:
    from pytest_openenv_scale.reporting.markdown.comparison import comparison_markdown
    from pytest_openenv_scale.reporting.text.comparison import comparison_lines

    if form == "text":
        show(comparison_lines(found, width=width(), encoding=sys.stdout.encoding))
        return
    if form == "md":
        sys.stdout.buffer.write(comparison_markdown(found).encode())
        return
    document = {"format": 1, "outcome": found.outcome.value, **found.to_json()}
    print(json.dumps(document, allow_nan=False, indent=1))


EXPORT_HELP = "write a run as older result files"


def add_export(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("path", metavar="RUN", help="directory or id of a run, or latest")
    parser.add_argument("--results", type=Path, default=Path("openenv-results"), metavar="DIR", help="where runs are")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write there (default: the run's folder older/)")


def run_export(given: argparse.Namespace) -> int:
    """Write raw.jsonl (a line per session) and summary.csv (a line per cell and repetition) of a run."""
    from pytest_openenv_scale.core.errors import RunError
    from pytest_openenv_scale.legacy.exporting import export_older
    from pytest_openenv_scale.legacy.files import LegacyError

    try:
        path = run_path(given.path, given.results)
        written = export_older(path, given.output or path / "older")
    except (LegacyError, RunError) as error:
        return complain("export", str(error))
    print(f"written: {', '.join(map(str, written))}")
    return 0


HISTORY_HELP = "draw max batch over the stored runs"

_FIGURES = (".svg", ".png")


def add_history(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--results", type=Path, default=Path("openenv-results"), metavar="DIR", help="where runs are")
    parser.add_argument("--test", metavar="TEXT", help="only tests whose node id has this in it")
    parser.add_argument("--infrastructure", metavar="LABEL", help="only this infrastructure")
    parser.add_argument("--metric", default="max_batch", metavar="NAME", help="what to draw (default: max_batch)")
    parser.add_argument("--batch", type=int, metavar="N", help="take a metric of a batch at this one")
    parser.add_argument("--last", type=int, default=50, metavar="N", help="only so many runs (default: 50)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="draw a figure as well: FILE.svg or FILE.png")


def run_history(given: argparse.Namespace) -> int:
    """Show a figure of every curve over the runs, the oldest first; the exit code does not tell a verdict."""
    from pytest_openenv_scale.analysis.history import histories
    from pytest_openenv_scale.config.limits import METRICS
    from pytest_openenv_scale.core.errors import RunError
    from pytest_openenv_scale.core.parsing import nearest, shown
    from pytest_openenv_scale.core.system import cannot_draw
    from pytest_openenv_scale.reporting.text.comparison import history_lines

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
    from pytest_openenv_scale.analysis.run import load_run
    from pytest_openenv_scale.core.errors import RunError
    from pytest_openenv_scale.results.manifest import run_paths

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
    from pytest_openenv_scale.core.errors import RunError
    from pytest_openenv_scale.core.parsing import nearest, shown

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
    from pytest_openenv_scale.reporting.figures.history import write_history

    try:
        write_history(curves, path)
    except OSError as error:
        return complain("history", f"the figure cannot be written: {path}: {error.strerror}")
    print(f"written: {path}")
    return 0


IMPORT_HELP = "make runs of older result files"


def add_import(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="raw.jsonl, or a folder that holds some")
    parser.add_argument("--infrastructure", metavar="NAME", help="what was measured (default: .../NAME/DATE/raw.jsonl)")
    parser.add_argument("--cores", metavar="N", help="the server's cores, where known")
    parser.add_argument("--note", metavar="TEXT", help="keep this text with the runs")
    parser.add_argument(
        "--results", type=Path, default=Path("openenv-results"), metavar="DIR", help="write the runs into this folder"
    )


def run_import(given: argparse.Namespace) -> int:
    """Make a run of raw.jsonl and the summary.csv beside it, so that it reports and compares like any other."""
    from pytest_openenv_scale.core.errors import GrammarError, RunError
    from pytest_openenv_scale.core.parsing import parse_count
    from pytest_openenv_scale.legacy.files import LegacyError
    from pytest_openenv_scale.legacy.importing import find_sources, import_older

    try:
        cores = None if given.cores is None else parse_count(given.cores, what="--cores")
        for source in find_sources(given.paths, given.infrastructure):
            found = import_older(source, given.results, cores=cores, note=given.note)
            for note in found.notes:
                print(f"! {note}")
            for path in found.made:
                print(f"imported {source.raw} as {path}")
            for path in found.present:
                print(f"{source.raw} is imported already: {path}")
    except (GrammarError, LegacyError, RunError) as error:
        return complain("import", str(error))
    return 0
