"""`openenv-scale list`, `report`, `compare`, `history`, `import` and `export`: stored runs, and older result files."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_openenv_scale.results.location import RUN_NAMES

from .console import (
    USAGE_ERROR,
    add_results,
    named_run,
    print_block,
    print_error,
    print_lines,
    results_folder,
    run_folders,
    terminal_width,
)
from .curves import add_curve_selection, select_curves

if TYPE_CHECKING:
    from pytest_openenv_scale.analysis.axes import CurveHistory
    from pytest_openenv_scale.analysis.run import Run
    from pytest_openenv_scale.analysis.study import Study
    from pytest_openenv_scale.config.limits import Slo
    from pytest_openenv_scale.results.comparison import Comparison


def add_report(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"{RUN_NAMES} (default: latest)")
    parser.add_argument("--all", action="store_true", help="every run in the results directory")
    add_results(parser)
    parser.add_argument(
        "--slo",
        action="append",
        default=[],
        metavar="LIMIT",
        help="judge by this limit as well, for example total_p99<=2s; the run itself is left as it is; repeatable",
    )
    parser.add_argument(
        "--formats",
        metavar="LIST",
        help="what to write, of md, html, figures, latex, csv and log; none only prints (default: md)",
    )
    parser.add_argument("--figure-formats", metavar="LIST", help="of svg, png and pdf (default: svg,png)")
    parser.add_argument("--dpi", metavar="N", help="dots per inch of figures in PNG; 300 is for print (default: 130)")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="write there, not into the run; several runs become one study"
    )


def run_report(arguments: argparse.Namespace) -> int:
    """Print stored runs and rebuild their reports from the rows; the exit code does not tell the verdict.

    Each run's reports are written into its own directory. With --output they go there, and several runs are
    joined into one report of a study.
    """
    from pytest_openenv_scale.config.figures import DEFAULT_FIGURES, FigureFiles, idle_reason
    from pytest_openenv_scale.config.limits import Slo, merge_slos, parse_slo_expression
    from pytest_openenv_scale.config.values import parse_dpi, parse_figure_formats, parse_reports
    from pytest_openenv_scale.core.errors import RunError
    from pytest_openenv_scale.core.system import figures_problem
    from pytest_openenv_scale.reporting import write_reports

    # The last expression wins where a limit is named twice.
    limits = merge_slos(*(Slo((parse_slo_expression(text),)) for text in reversed(arguments.slo)))
    formats = parse_reports(arguments.formats or "md")
    if "figures" in formats and (problem := figures_problem()):
        raise RunError(f"--formats: {problem}")
    figures = FigureFiles(
        DEFAULT_FIGURES.formats if arguments.figure_formats is None else parse_figure_formats(arguments.figure_formats),
        DEFAULT_FIGURES.dpi if arguments.dpi is None else parse_dpi(arguments.dpi),
    )
    for option, value in (("figure-formats", arguments.figure_formats), ("dpi", arguments.dpi)):
        if value is not None and (idle := idle_reason(option, formats, figures.formats, "--formats")):
            raise RunError(f"--{option}: {idle}")
    paths, code = _run_paths(arguments)
    if limits.limits and arguments.formats and arguments.output is None:
        raise RunError("a run's own reports stay with its own limits; write those by --slo with --output DIR")
    write = partial(write_reports, formats=formats, directory=arguments.output, figures=figures)
    if not formats:
        write = _write_nothing
    if arguments.output is not None and len(paths) > 1:
        return _report_study(paths, limits, write) or code
    for path in paths:
        try:
            _report_run(path, limits, write, arguments)
        except RunError as error:
            code = print_error("report", str(error))
    return code


def _write_nothing(source: Run | Study) -> list[Path]:
    """Write no report, not even the one that programs read: `--formats none`."""
    return []


def _run_paths(arguments: argparse.Namespace) -> tuple[list[Path], int]:
    """Return the runs that are there and the exit code; a name that is none of a run is told."""
    from pytest_openenv_scale.core.errors import RunError
    from pytest_openenv_scale.results.manifest import run_paths

    if arguments.all and arguments.runs:
        raise RunError("--all and a run are given; write one of them")
    if arguments.all and (paths := run_paths(run_folders(arguments))):
        return paths, 0
    code = 0
    paths: list[Path] = []
    for name in arguments.runs or ["latest"]:
        try:
            paths.append(named_run(name, arguments))
        except RunError as error:
            code = print_error("report", str(error))
    return paths, code


def _report_run(path: Path, limits: Slo, write: Callable[[Run], list[Path]], arguments: argparse.Namespace) -> None:
    from pytest_openenv_scale.core.errors import RunError
    from pytest_openenv_scale.reporting import run_lines

    run = _load_run(path, limits)
    print_block(run_lines(run, width=terminal_width(), encoding=sys.stdout.encoding))
    if limits.limits and arguments.output is None:
        return
    try:
        _print_written(write(run))
    except RunError as error:
        if arguments.formats is not None or arguments.output is not None:
            raise
        # What was asked for stands on the terminal; a run on a read-only disk stays as it is.
        print_error("report", str(error))


def _report_study(paths: Sequence[Path], limits: Slo, write: Callable[[Study], list[Path]]) -> int:
    """Join the runs that can be read; the others are told and make the exit code 2."""
    from pytest_openenv_scale.core.errors import RunError
    from pytest_openenv_scale.reporting import join_runs, study_lines

    code = 0
    runs: list[Run] = []
    for path in paths:
        try:
            runs.append(_load_run(path, limits))
        except RunError as error:
            code = print_error("report", str(error))
    if not runs:
        return code
    study = join_runs(runs)
    print_block(study_lines(study, width=terminal_width(), encoding=sys.stdout.encoding))
    _print_written(write(study))
    return code


def _load_run(path: Path, limits: Slo) -> Run:
    """Read a run; these limits are added to those it was judged by, and win over limits of the same name."""
    from dataclasses import replace

    from pytest_openenv_scale.analysis.run import load_run
    from pytest_openenv_scale.config.limits import merge_slos
    from pytest_openenv_scale.verdict.sweep import view_sweep

    run = load_run(path)
    if not limits.limits:
        return run
    views = [
        view_sweep(
            replace(view.record, slos=tuple(merge_slos(limits, slo) for slo in view.record.slos)),
            [summary for curve in view.curves for summary in (*curve.summaries, *curve.set_aside)],
        )
        for view in run.sweeps
    ]
    return replace(run, sweeps=tuple(views))


def _print_written(paths: Sequence[Path]) -> None:
    if paths:
        print(f"written: {', '.join(map(str, paths))}\n")


EXIT_CODES = {"held": 0, "shown": 0, "regressed": 1, "inconclusive": 3}
"""By outcome; 2 is bad input."""


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("baseline", metavar="A", help=f"the baseline: {RUN_NAMES}")
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
    add_results(parser)


def run_compare(arguments: argparse.Namespace) -> int:
    """Compare run B with the baseline A, curve by curve.

    A figure regresses where it is beyond --fail-on and outside the baseline's range over repetitions. Exit code 0
    where nothing regressed (or nothing is judged, without --fail-on), 1 for a regression, 2 for bad input,
    3 where it is inconclusive: a curve of A that B lacks, runs that measured different things, a figure in doubt.
    """
    from pytest_openenv_scale.analysis.compare import compare_runs
    from pytest_openenv_scale.analysis.run import load_run
    from pytest_openenv_scale.config.limits import parse_fail_on, parse_reference
    from pytest_openenv_scale.core.errors import RunError
    from pytest_openenv_scale.results.references import find_run

    fail_on, folders = parse_fail_on(arguments.fail_on), run_folders(arguments)
    paths = [find_run(parse_reference(name, Path.cwd()), folders) for name in (arguments.baseline, arguments.now)]
    if paths[0].resolve() == paths[1].resolve():
        raise RunError(f"A and B are the same run, {paths[0]}")
    baseline, now = map(load_run, paths)
    reference = arguments.baseline if arguments.baseline not in map(str, paths) else None
    comparison = compare_runs(baseline, now, fail_on, reference=reference, allow_missing=arguments.allow_missing)
    _print_comparison(comparison, arguments.format)
    return EXIT_CODES[comparison.outcome]


def _print_comparison(comparison: Comparison, output_format: str) -> None:
    from pytest_openenv_scale.reporting.json import comparison_document
    from pytest_openenv_scale.reporting.markdown.comparison import comparison_markdown
    from pytest_openenv_scale.reporting.text.comparison import comparison_lines

    if output_format == "text":
        print_block(comparison_lines(comparison, width=terminal_width(), encoding=sys.stdout.encoding))
        return
    if output_format == "md":
        sys.stdout.buffer.write(comparison_markdown(comparison).encode())
        return
    print(json.dumps({"format": 1, **comparison_document(comparison)}, allow_nan=False, indent=1))


def add_export(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("path", metavar="RUN", help=RUN_NAMES)
    add_results(parser)
    parser.add_argument("--output", type=Path, metavar="DIR", help="write there (default: the run's folder older/)")


def run_export(arguments: argparse.Namespace) -> int:
    """Write raw.jsonl (a line per session) and summary.csv (a line per cell and repetition) of a run."""
    from pytest_openenv_scale.legacy.exporting import export_older

    path = named_run(arguments.path, arguments)
    written = export_older(path, arguments.output or path / "older")
    print(f"written: {', '.join(map(str, written))}")
    return 0


def add_history(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_results(parser)
    add_curve_selection(parser)
    parser.add_argument("--metric", default="max_batch", metavar="NAME", help="what to draw (default: max_batch)")
    parser.add_argument("--batch", type=int, metavar="N", help="take a metric of a batch at this one")
    parser.add_argument("--last", type=int, default=50, metavar="N", help="only so many runs (default: 50)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="draw a figure as well: FILE.svg, .png or .pdf")
    parser.add_argument("--dpi", metavar="N", help="dots per inch of FILE.png; 300 is for print (default: 130)")


def run_history(arguments: argparse.Namespace) -> int:
    """Show a figure of every curve over the runs, the oldest first; the exit code does not tell a verdict."""
    from pytest_openenv_scale.analysis.axes import histories
    from pytest_openenv_scale.config.figures import DEFAULT_FIGURES, FIGURE_FORMATS
    from pytest_openenv_scale.config.limits import METRICS, find_limit, limit_names
    from pytest_openenv_scale.config.values import parse_dpi
    from pytest_openenv_scale.core.errors import GrammarError
    from pytest_openenv_scale.core.parsing import short_repr, suggestion
    from pytest_openenv_scale.core.system import figures_problem
    from pytest_openenv_scale.reporting.text.comparison import history_lines

    metric = find_limit(arguments.metric)
    if metric is None or not metric.compared:
        names = limit_names(METRICS)
        raise GrammarError(f"there is no metric {short_repr(arguments.metric)}{suggestion(arguments.metric, names)}")
    for name, number in (("--last", arguments.last), ("--batch", arguments.batch)):
        if number is not None and number < 1:
            raise GrammarError(f"{name} must be at least 1, got {number}")
    if arguments.output is not None and arguments.output.suffix.removeprefix(".") not in FIGURE_FORMATS:
        raise GrammarError(f"--output: write FILE.svg, FILE.png or FILE.pdf, got {short_repr(str(arguments.output))}")
    dpi = DEFAULT_FIGURES.dpi if arguments.dpi is None else parse_dpi(arguments.dpi)
    if arguments.dpi is not None and (arguments.output is None or arguments.output.suffix != ".png"):
        raise GrammarError("--dpi: no figure is written as PNG; write --output FILE.png")
    if arguments.output is not None and (problem := figures_problem()):
        raise GrammarError(f"--output: {problem}")
    runs, problems = _last_runs(arguments)
    all_curves = histories(runs, metric.name, batch=arguments.batch)
    curves = select_curves(all_curves, arguments)
    print_block(history_lines(curves, width=terminal_width(), encoding=sys.stdout.encoding))
    for problem in problems:
        print_error("history", problem)
    if arguments.output is not None:
        _draw(curves, arguments.output, dpi)
    return USAGE_ERROR if problems else 0


def _last_runs(arguments: argparse.Namespace) -> tuple[list[Run], list[str]]:
    """Read the runs, the oldest first, and say of those that cannot be read why."""
    from pytest_openenv_scale.core.errors import RunError
    from pytest_openenv_scale.results.manifest import run_paths
    from pytest_openenv_scale.results.references import folders_text

    folders = run_folders(arguments)
    runs, damaged = _readable_runs(run_paths(folders)[-arguments.last :])
    problems = list(damaged.values())
    if not runs:
        raise RunError(problems[0] if problems else f"there is no run in {folders_text(folders)}")
    return sorted(runs, key=lambda run: run.record.started_at), problems


def _draw(curves: list[CurveHistory], path: Path, dpi: int) -> None:
    from pytest_openenv_scale.core.errors import RunError
    from pytest_openenv_scale.reporting.figures.write import write_history

    try:
        write_history(curves, path, dpi)
    except OSError as error:
        raise RunError(f"the figure cannot be written: {path}: {error.strerror}") from None
    print(f"written: {path}")


def add_list(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_results(parser)
    parser.add_argument("--last", default="20", metavar="N", help="only so many runs (default: 20)")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run_list(arguments: argparse.Namespace) -> int:
    """List stored runs, the newest first: when, how they ended, what was measured, max batch, commit and note.

    A run that cannot be read is told on standard error; the exit code does not tell a verdict.
    """
    from pytest_openenv_scale.core.errors import RunError
    from pytest_openenv_scale.core.parsing import parse_count
    from pytest_openenv_scale.reporting.json import run_list_document
    from pytest_openenv_scale.reporting.text.run_list import run_list_lines
    from pytest_openenv_scale.results.manifest import run_paths
    from pytest_openenv_scale.results.references import folders_text

    last = parse_count(arguments.last, what="--last")
    if arguments.results is not None and not arguments.results.is_dir():
        raise RunError(f"--results: there is no folder {arguments.results}")
    folders = run_folders(arguments)
    paths = run_paths(folders)[::-1]
    runs, damaged = _readable_runs(paths[:last])
    older = len(paths[last:])
    if arguments.json:
        print(json.dumps(run_list_document(runs, damaged, older), ensure_ascii=False, allow_nan=False, indent=1))
    else:
        form: Any = {"width": terminal_width(), "encoding": sys.stdout.encoding}
        print_lines(run_list_lines(runs, older=older, total=len(paths), **form))
    for problem in damaged.values():
        print_error("list", problem)
    if not paths:
        print_error("list", f"there is no run in {folders_text(folders)}")
    return 0


def _readable_runs(paths: Iterable[Path]) -> tuple[list[Run], dict[Path, str]]:
    """Return the runs that can be read, and of the others why they cannot."""
    from pytest_openenv_scale.analysis.run import load_run
    from pytest_openenv_scale.core.errors import RunError

    runs: list[Run] = []
    problems: dict[Path, str] = {}
    for path in paths:
        try:
            runs.append(load_run(path))
        except RunError as error:
            problems[path] = str(error)
    return runs, problems


def add_import(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="raw.jsonl, or a folder that holds some")
    parser.add_argument("--infrastructure", metavar="NAME", help="what was measured (default: .../NAME/DATE/raw.jsonl)")
    parser.add_argument("--cores", metavar="N", help="the server's cores, where known")
    parser.add_argument("--note", metavar="TEXT", help="keep this text with the runs")
    add_results(parser, "write the runs into this folder")


def run_import(arguments: argparse.Namespace) -> int:
    """Make a run of raw.jsonl and the summary.csv beside it, so that it reports and compares like any other."""
    from pytest_openenv_scale.core.parsing import parse_count
    from pytest_openenv_scale.legacy.importing import find_sources, import_older

    cores = None if arguments.cores is None else parse_count(arguments.cores, what="--cores")
    results = results_folder(arguments)
    for source in find_sources(arguments.paths, arguments.infrastructure):
        imported = import_older(source, results, cores=cores, note=arguments.note)
        for note in imported.notes:
            print(f"! {note}")
        for path in imported.made:
            print(f"imported {source.raw} as {path}")
        for path in imported.present:
            print(f"{source.raw} is imported already: {path}")
    return 0
