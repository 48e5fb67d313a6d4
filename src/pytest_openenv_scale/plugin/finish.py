"""The end of a pytest invocation: how the run ended, its reports, and what the terminal shows of it.

Nothing here raises: what goes wrong at the end is told, and must not hide what was measured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from .core.manifest import Status
    from .core.run import Run
    from .invocation import Invocation

T = TypeVar("T")


def end_status(session: pytest.Session, exitstatus: int, *, worker_crashed: bool) -> Status:
    """Say how the run ended: interrupted by a person, `-x` or a crash; failed by an internal error."""
    if exitstatus == pytest.ExitCode.INTERNAL_ERROR:
        return "failed"
    stopped = exitstatus == pytest.ExitCode.INTERRUPTED or session.shouldstop or session.shouldfail
    return "interrupted" if stopped or worker_crashed else "complete"


def finish(invocation: Invocation, status: Status) -> bool:
    """End the run of this invocation and write its reports; return whether all of that worked.

    Runs in the controlling process only.
    """
    end = _End(invocation)
    run = end.attempt("the end of the run", lambda: _end_run(invocation.place.path, status))
    if run is None:
        return False
    for view in run.sweeps:
        invocation.views.setdefault((view.test, view.target), view)
    invocation.checks = run.checks
    if invocation.place.kept:
        invocation.written.append(f"run {run.path} ({run.status})")
    _write_reports(end, invocation, run)
    return end.well


class _End:
    """Attempts one thing after the other and tells what did not work."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        self.well = True

    def attempt(self, name: str, act: Callable[[], T]) -> T | None:
        try:
            return act()
        except Exception as error:
            from .core.run import RunError

            said = str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
            self.well = False
            self._invocation.problems.append(f"{name} was not written: {said}")
            return None


def _end_run(path: Path, status: Status) -> Run:
    from .core.run import RunDirectory, load_run

    ends = {sweep.status for sweep in load_run(path).record.sweeps}
    if status == "complete" and not ends <= {"complete"}:
        status = "failed" if "failed" in ends else "interrupted"
    RunDirectory.open(path).finish(status)
    return load_run(path)


def _write_reports(end: _End, invocation: Invocation, run: Run) -> None:
    from .reports import append_step_summary, write_json, write_reports

    settings, hooks = invocation.settings, invocation.config.hook
    if invocation.place.kept:
        end.attempt("the report", lambda: write_reports(run, formats=settings.report))
    if (path := settings.json) is not None:
        end.attempt(f"--openenv-json {path}", lambda: write_json(run, path))
    end.attempt("the GitHub step summary", lambda: append_step_summary(run))
    relayed: Any = hooks
    end.attempt("a report of pytest_openenv_scale_report", lambda: relayed.pytest_openenv_scale_report(run=run))


def summarise(invocation: Invocation, reporter: Any) -> None:
    """Show every curve, the table of all of them, where the run is and what could not be written."""
    try:
        _show_curves(invocation, reporter)
    except Exception as error:
        reporter.write_line(f"the curves cannot be shown: {type(error).__name__}: {error}", red=True)
    for text in invocation.written:
        reporter.write_line(text)
    for text in invocation.problems:
        reporter.write_line(text, red=True)


def _show_curves(invocation: Invocation, reporter: Any) -> None:
    from .core.comparison import join_comparisons
    from .progress import encoding, page_width
    from .reports.comparison import comparison_lines
    from .reports.overview import summary_lines
    from .reports.replicas import scaling_lines
    from .reports.terminal import sweep_lines

    width = page_width(invocation.config)
    views = list(invocation.views.values())
    if invocation.checks:
        from .reports.checks import check_lines

        reporter.section("OpenEnv checks")
        for line in check_lines(invocation.checks, width=width, encoding=encoding()):
            reporter.write_line(line.text, **line.markup)
        reporter.write_line("")
    if not views:
        return
    reporter.section("OpenEnv scaling")
    for view in views:
        for line in sweep_lines(view, width=width, encoding=encoding()):
            reporter.write_line(line.text, **line.markup)
        reporter.write_line("")
    if sum(len(view.curves) for view in views) > 1:
        for line in summary_lines(views, width=width, encoding=encoding()):
            reporter.write_line(line.text, **line.markup)
        reporter.write_line("")
    compared = join_comparisons(view.record.comparison for view in views if view.record.comparison is not None)
    for found in compared:
        reporter.section("OpenEnv scaling: compared with the baseline")
        for line in comparison_lines(found, width=width, encoding=encoding()):
            reporter.write_line(line.text, **line.markup)
        reporter.write_line("")
    if repeated := scaling_lines(views, width=width, encoding=encoding()):
        for line in repeated:
            reporter.write_line(line.text, **line.markup)
        reporter.write_line("")
