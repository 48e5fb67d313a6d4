"""After a test: its verdict; after the last test: the reports of the run and the summary on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from pytest_openenv_scale.analysis.run import Run
    from pytest_openenv_scale.engine.sweep import Sweep
    from pytest_openenv_scale.reporting.text.page import Line
    from pytest_openenv_scale.results.manifest import Status

    from .invocation import Invocation
    from .scaling_fixture import Scaling

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
    if invocation.run_location.kept:
        invocation.result_lines.append(f"run {run.path} ({run.status})")
    _write_reports(steps, invocation, run)
    return steps.succeeded


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


def _write_reports(steps: _FinalSteps, invocation: Invocation, run: Run) -> None:
    from pytest_openenv_scale.config.figures import FigureFiles
    from pytest_openenv_scale.reporting import append_outputs, append_step_summary, write_json, write_reports

    settings, hooks = invocation.settings, invocation.config.hook
    figures = FigureFiles(settings.figure_formats, settings.dpi)
    if invocation.run_location.kept:
        steps.attempt("the report", lambda: write_reports(run, formats=settings.report, figures=figures))
    if (path := settings.json) is not None:
        steps.attempt(f"--openenv-json {path}", lambda: write_json(run, path))
    if (file := settings.outputs) is not None:
        steps.attempt(f"--openenv-outputs {file}", lambda: append_outputs(run, file))
    steps.attempt("the GitHub step summary", lambda: append_step_summary(run))
    untyped_hooks: Any = hooks
    steps.attempt("a report of pytest_openenv_scale_report", lambda: untyped_hooks.pytest_openenv_scale_report(run=run))


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
    from pytest_openenv_scale.reporting.text.overview import scaling_lines, summary_lines
    from pytest_openenv_scale.reporting.text.sweep import sweep_lines
    from pytest_openenv_scale.results.comparison import join_comparisons

    from .progress import encoding, page_width

    form: Any = {"width": page_width(invocation.config), "encoding": encoding()}

    def write(lines: Iterable[Line]) -> None:
        for line in lines:
            reporter.write_line(line.text, **line.markup)
        reporter.write_line("")

    views = list(invocation.views.values())
    if invocation.checks:
        from pytest_openenv_scale.reporting.text.checks import check_lines

        reporter.section("OpenEnv checks")
        write(check_lines(invocation.checks, **form))
    if not views:
        return
    reporter.section("OpenEnv scaling")
    for view in views:
        write(sweep_lines(view, **form))
    if sum(len(view.curves) for view in views) > 1:
        write(summary_lines(views, **form))
    comparisons = join_comparisons(view.record.comparison for view in views if view.record.comparison is not None)
    for comparison in comparisons:
        reporter.section("OpenEnv scaling: compared with the baseline")
        write(comparison_lines(comparison, **form))
    if repeated := scaling_lines(views, **form):
        write(repeated)


WIDTH = 100
"""Columns of the text of a failing test, which is read in logs as often as in terminals."""


class InconclusiveWarning(pytest.PytestWarning):
    """An SLO could not be judged, and `--openenv-inconclusive warn` lets the test pass."""


def warn_inconclusive(item: pytest.Item, text: str) -> None:
    """Let a test pass with a warning; where warnings are errors, fail it with the same line and no traceback."""
    try:
        item.warn(InconclusiveWarning(text))
    except InconclusiveWarning as warning:
        pytest.fail(f"{warning} (warnings are errors here: -W, filterwarnings)", pytrace=False)


def judge_test(item: pytest.Item, scaling: Scaling) -> None:
    """Fail a test whose SLO is not met, or that measured nothing."""
    if scaling.sweep is not None:
        _judge_sweep(item, scaling.sweep, scaling.no_baseline, warn=scaling.settings.inconclusive == "warn")
    elif scaling.began:
        text = "the sweep was begun but not finished, so there is no verdict"
        pytest.fail(f"{item.nodeid}: {text}", pytrace=False)
    elif not scaling.opened_session:
        text = "the test is marked scaling but never calls scaling.run(); call it, or await scaling.run_async()"
        pytest.fail(f"{item.nodeid}: {text}", pytrace=False)


def unawaited_problem(item: pytest.Item, outcome: BaseException) -> str | None:
    """Return what to do about an async test that no plugin runs; pytest says less, and before 8.4 only skips it."""
    if not str(outcome).startswith("async def function"):
        return None
    from pytest_openenv_scale.core.system import install_command

    install = install_command("pytest_asyncio")
    mark = "write @pytest.mark.asyncio above it, or asyncio_mode = auto into the ini file"
    return f"{item.nodeid}: no plugin runs this async test: {f'{install}, then {mark}' if install else mark}"


def _judge_sweep(item: pytest.Item, sweep: Sweep, no_baseline: str | None, *, warn: bool) -> None:
    """Fail for a limit that is missed or a regression; what cannot be judged fails too, or is a warning."""
    from pytest_openenv_scale.reporting.content.verdicts import verdict_reason
    from pytest_openenv_scale.reporting.text.sweep import sweep_failure_text
    from pytest_openenv_scale.results.comparison import Judgement
    from pytest_openenv_scale.results.outcome import Outcome

    from .progress import encoding

    texts: list[str] = []
    inconclusive: list[str] = []
    if sweep.outcome is not Outcome.MET:
        texts.append(sweep_failure_text(sweep.view, width=WIDTH, encoding=encoding()))
        first = next(curve for curve in sweep.view.curves if curve.verdict.outcome is not Outcome.MET)
        inconclusive.append(verdict_reason(first))
    comparison = sweep.view.record.comparison
    regressed = comparison is not None and comparison.outcome is Judgement.REGRESSED
    if comparison is not None and comparison.outcome in (Judgement.REGRESSED, Judgement.INCONCLUSIVE):
        from pytest_openenv_scale.reporting.content.comparison import why_inconclusive
        from pytest_openenv_scale.reporting.text.comparison import comparison_failure_text

        position = 0 if regressed and sweep.outcome is not Outcome.MISSED else len(texts)
        texts.insert(position, comparison_failure_text(comparison, width=WIDTH, encoding=encoding()))
        inconclusive.append(f"baseline: {why_inconclusive(comparison)}")
    if no_baseline is not None:
        inconclusive.append(f"no baseline to compare with: {no_baseline}")
    if sweep.outcome is Outcome.MISSED or regressed:
        pytest.fail("\n\n".join(texts), pytrace=False)
    if not inconclusive:
        return
    first_line = f"inconclusive: {inconclusive[0]}"
    if warn:
        warn_inconclusive(item, "; ".join([first_line, *inconclusive[1:]]))
        return
    rest = [f"inconclusive: {doubt}" for doubt in inconclusive[1:]]
    pytest.fail("\n\n".join([first_line, *rest, *texts, "--openenv-inconclusive warn lets this pass"]), pytrace=False)
