"""After the last test: the reports of the run, and the summary on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from .failing import failed_sweep, shows_messages

if TYPE_CHECKING:
    from pytest_openenv_scale.analysis.run import Run
    from pytest_openenv_scale.reporting.text.page import Line
    from pytest_openenv_scale.results.manifest import Status

    from .invocation import Invocation

T = TypeVar("T")


def end_status(session: pytest.Session, exitstatus: int, *, worker_crashed: bool) -> Status:
    """Say how the run ended: interrupted by a person, `-x` or a crash; failed by an internal error."""
    if exitstatus == pytest.ExitCode.INTERNAL_ERROR:
        return "failed"
    stopped = exitstatus == pytest.ExitCode.INTERRUPTED or session.shouldstop or session.shouldfail
    return "interrupted" if stopped or worker_crashed else "complete"


def finish_run(invocation: Invocation, status: Status) -> bool:
    """End the run of this invocation and write its reports; return whether all of that worked.

    Runs in the controlling process only.
    """
    steps = _FinalSteps(invocation)
    run = steps.attempt("the end of the run", lambda: _end_run(invocation, status))
    if run is None:
        return False
    for view in run.sweeps:
        invocation.views.setdefault((view.test, view.target), view)
    invocation.checks = run.checks
    written = _write_reports(steps, invocation, run)
    if invocation.run_location.kept:
        invocation.result_lines.append(_where(run, written))
    return steps.succeeded


def _where(run: Run, written: Sequence[Path]) -> str:
    """Say where to read on: the report that one would open, else the directory of the run."""
    by_name = {path.name: path for path in written}
    path = next((by_name[name] for name in ("report.html", "report.md") if name in by_name), run.path)
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    unfinished = "" if run.status == "complete" else f" ({run.status})"
    return f"{'run' if path == run.path else 'report'}: {path}{unfinished}"


class _FinalSteps:
    """Takes the last steps of a run; one that raises becomes a problem to report and does not stop the next."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        self.succeeded = True

    def attempt(self, name: str, action: Callable[[], T]) -> T | None:
        try:
            return action()
        except Exception as error:
            from pytest_openenv_scale.core.errors import RunError

            message = str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
            self.succeeded = False
            self._invocation.problems.append(f"{name} was not written: {message}")
            return None


def _end_run(invocation: Invocation, status: Status) -> Run:
    """Close the run and return it; only what nobody here measured is read again (a sweep that was interrupted)."""
    from pytest_openenv_scale.analysis.run import load_run
    from pytest_openenv_scale.results.manifest import read_manifest
    from pytest_openenv_scale.results.run_directory import RunDirectory

    path = invocation.run_location.path
    ends = {sweep.status for sweep in read_manifest(path).sweeps}
    if status == "complete" and not ends <= {"complete"}:
        status = "failed" if "failed" in ends else "interrupted"
    RunDirectory.open(path).finish(status)
    return load_run(path, invocation.measured)


def _write_reports(steps: _FinalSteps, invocation: Invocation, run: Run) -> list[Path]:
    from pytest_openenv_scale.config.figures import FigureFiles
    from pytest_openenv_scale.reporting import append_outputs, append_step_summary, write_json, write_reports

    settings, hooks = invocation.settings, invocation.config.hook
    figures = FigureFiles(settings.figure_formats, settings.dpi)
    written: list[Path] | None = None
    if invocation.run_location.kept:
        written = steps.attempt("the report", lambda: write_reports(run, formats=settings.report, figures=figures))
    if (path := settings.json) is not None:
        steps.attempt(f"--openenv-json {path}", lambda: write_json(run, path))
    if (file := settings.outputs) is not None:
        steps.attempt(f"--openenv-outputs {file}", lambda: append_outputs(run, file))
    steps.attempt("the GitHub step summary", lambda: append_step_summary(run))
    untyped_hooks: Any = hooks
    steps.attempt("a report of pytest_openenv_scale_report", lambda: untyped_hooks.pytest_openenv_scale_report(run=run))
    return written or []


def show_summary(invocation: Invocation, reporter: Any) -> None:
    """Show every curve, the table of all of them, where the run is and what could not be written."""
    try:
        _show_curves(invocation, reporter)
    except Exception as error:
        reporter.write_line(f"the curves cannot be shown: {type(error).__name__}: {error}", red=True)
    for text in invocation.result_lines:
        reporter.write_line(text)
    for text in invocation.problems:
        reporter.write_line(text, red=True)


def _show_curves(invocation: Invocation, reporter: Any) -> None:
    from pytest_openenv_scale.reporting.text.comparison import comparison_lines
    from pytest_openenv_scale.reporting.text.failure import BASELINE_SECTION, SECTION
    from pytest_openenv_scale.reporting.text.overview import scaling_lines, summary_lines
    from pytest_openenv_scale.reporting.text.sweep import BlockStyle, sweep_lines
    from pytest_openenv_scale.results.comparison import join_comparisons

    from .progress import encoding, page_width

    form: Any = {"width": page_width(invocation.config), "encoding": encoding()}
    details = invocation.config.get_verbosity() > 0

    def write(lines: Iterable[Line]) -> None:
        for line in lines:
            reporter.write_line(line.text, **line.markup)
        reporter.write_line("")

    views = list(invocation.views.values())
    if invocation.checks:
        from pytest_openenv_scale.reporting.text.checks import check_lines

        reporter.section("OpenEnv checks")
        write(check_lines(invocation.checks, passed=details, **form))
    if not views:
        return
    reporter.section(SECTION)
    told = _told_above(invocation, reporter)
    for view in views:
        style = BlockStyle(details=details, refusals=(view.test, view.target) not in told)
        write(sweep_lines(view, style=style, **form))
    if repeated := scaling_lines(views, **form):
        write(repeated)
    comparisons = join_comparisons(view.record.comparison for view in views if view.record.comparison is not None)
    for comparison in comparisons:
        reporter.section(BASELINE_SECTION)
        write(comparison_lines(comparison, **form))
    if sum(len(view.curves) for view in views) > 1:
        if comparisons:
            reporter.section(f"{SECTION}: all curves")
        write(summary_lines(views, **form))


def _told_above(invocation: Invocation, reporter: Any) -> set[tuple[str, str]]:
    """Return, by test and target, the sweeps whose failure is shown above, with what refused and what to do."""
    if not shows_messages(invocation):
        return set()
    failed: list[pytest.TestReport] = reporter.stats.get("failed", [])
    return {named for report in failed if (named := failed_sweep(report)) is not None}
