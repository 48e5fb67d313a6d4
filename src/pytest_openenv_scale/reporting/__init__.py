"""Reports for people and programs: each is a function of a run or of a study, and nothing else.

May import core, config, results, metrics, verdict and analysis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_openenv_scale.analysis.run import Run
from pytest_openenv_scale.analysis.study import Study, join_runs, study_of
from pytest_openenv_scale.config.figures import DEFAULT_FIGURES, FigureFiles
from pytest_openenv_scale.core.errors import RunError
from pytest_openenv_scale.core.files import replace_file

from .content.study_tables import study_tables
from .json import junit_properties, run_json
from .markdown.run import append_step_summary, report_markdown
from .outputs import append_outputs
from .text.failure import failure_text
from .text.overview import run_lines, study_lines, summary_lines
from .text.page import Line
from .text.sweep import cell_line, curve_lines, sweep_lines

__all__ = [
    "FORMATS",
    "Line",
    "Study",
    "append_outputs",
    "append_step_summary",
    "cell_line",
    "curve_lines",
    "failure_text",
    "join_runs",
    "junit_properties",
    "run_lines",
    "study_lines",
    "summary_lines",
    "sweep_lines",
    "write_json",
    "write_reports",
]


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """What is reported, the folder its reports go into, that of the log, and how figures are written."""

    source: Run | Study
    folder: Path
    logs: Path
    figures: FigureFiles


def write_reports(
    source: Run | Study,
    *,
    formats: tuple[str, ...] = ("md",),
    directory: Path | None = None,
    figures: FigureFiles = DEFAULT_FIGURES,
) -> list[Path]:
    """Write the formats asked for, of a run also `report.json`, each file complete or not there; return their paths.

    They go into `directory`, by default that of the run; a run that is not kept gets none there. The log goes there
    as well, by default where `log_path` says, as it is one of all runs. One format that fails keeps no other from being
    written. Any run can be reported, also one that was interrupted or is damaged. `figures` says how those are written.

    Raises:
        RunError: something cannot be written; several failures are joined in one line.
    """
    run = source if isinstance(source, Run) else None
    run_folder = run.path if run and run.record.kept else None
    folder = directory or run_folder
    if folder is None:
        return []
    request = ReportRequest(source, folder, directory or folder.parent, figures)
    paths = [write_json(run, folder / "report.json")] if run else []
    failures: list[str] = []
    for name, write in FORMATS.items():
        try:
            paths += write(request) if name in formats else []
        except RunError as error:
            failures.append(str(error))
    if failures:
        raise RunError("; ".join(dict.fromkeys(failures)))
    return paths


def write_json(run: Run, path: Path) -> Path:
    """Write the JSON report to a path of its own and return it.

    Raises:
        RunError: the file cannot be written.
    """
    return replace_file(path, run_json(run))


def _write_markdown(request: ReportRequest) -> list[Path]:
    return [replace_file(request.folder / "report.md", report_markdown(request.source))]


def _write_figures(request: ReportRequest) -> list[Path]:
    from .figures import write_figures

    return write_figures(study_of(request.source), request.folder / "figures", request.figures)


def _write_html(request: ReportRequest) -> list[Path]:
    from .html import report_html

    return [replace_file(request.folder / "report.html", report_html(request.source))]


def _write_latex(request: ReportRequest) -> list[Path]:
    from .table_files import table_latex, write_tables

    return write_tables(study_tables(study_of(request.source)), request.folder / "tables", ".tex", table_latex)


def _write_csv(request: ReportRequest) -> list[Path]:
    from .table_files import table_csv, write_tables

    return write_tables(study_tables(study_of(request.source)), request.folder / "tables", ".csv", table_csv)


def _write_log(request: ReportRequest) -> list[Path]:
    from .markdown.experiment_log import update_log

    return [update_log(request.logs, study_of(request.source))]


FORMATS: Mapping[str, Callable[[ReportRequest], list[Path]]] = {
    "md": _write_markdown,
    # Before the page, which shows the same pictures: they are drawn once.
    "figures": _write_figures,
    "html": _write_html,
    "latex": _write_latex,
    "csv": _write_csv,
    "log": _write_log,
}
"""The reports that can be asked for and what writes each, in this order."""
