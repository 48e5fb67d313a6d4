"""The pytest plugin, in the order of its life; every hook calls inward.

What is imported up here is in every pytest run, so it is little and imports little: a test holds that. The rest of the
package is imported where it is needed, by runs that give an option or an ini key of ours or have a test of ours.

May import everything but cli and suite; nothing but it and the suite imports pytest.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from . import hookspec
from .invocation import INVOCATION, PROBLEMS, Invocation, concerns_plugin
from .marks import DECLARATION, marker_lines
from .option_values import register_options

if TYPE_CHECKING:
    from pytest_openenv_scale.core.endpoint import Endpoint

    from .check import CheckRunner
    from .scaling_fixture import Scaling

SCALING: pytest.StashKey[Scaling] = pytest.StashKey()
"""In a test's stash: what its fixture `scaling` returned."""


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the extension points."""
    pluginmanager.add_hookspecs(hookspec)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options and their ini twins."""
    register_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks, and refuse wrong options before anything starts."""
    for line in marker_lines():
        config.addinivalue_line("markers", line)
    invocation = Invocation(config)
    if invocation.sources:
        from .settings import check_settings

        try:
            check_settings(config, invocation.settings)
        except pytest.UsageError as error:
            if not invocation.is_run_command:
                raise
            raise pytest.UsageError(str(error).replace("--openenv-", "--")) from None
    config.stash[INVOCATION] = invocation
    config.pluginmanager.register(_ReportReceiver(invocation), "openenv_scale_gathering")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell an xdist worker which run it takes part in."""
    invocation = _invocation(node.config)
    if invocation.is_requested:
        invocation.heed_signals()
    node.workerinput["openenv_scale"] = invocation.run_location.to_worker()
    if invocation.baseline is not None:
        node.workerinput["openenv_scale_baseline"] = invocation.baseline.to_worker()


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say which servers will be measured, where the command line or the ini file asks for it."""
    invocation = _invocation(config)
    if not invocation.is_requested:
        return []
    from .header import header_lines

    collected_elsewhere = bool(getattr(config.option, "numprocesses", None))
    environment = invocation.environments.folder(None)
    return header_lines(invocation.settings, environment, config.rootpath, with_grid=collected_elsewhere)


def pytest_report_collectionfinish(config: pytest.Config, items: Sequence[pytest.Item]) -> list[str]:
    """Say what will be measured; on which servers, too, where only marked tests ask for it."""
    invocation = _invocation(config)
    if not invocation.measures or config.get_verbosity() < 0:
        return []
    from .header import grid_lines, header_lines

    environment, grid = invocation.environments.folder(None), grid_lines(items, invocation.settings)
    if invocation.is_requested:
        return grid
    first, *others = header_lines(invocation.settings, environment, config.rootpath)
    return [first, *grid, *others]


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect the root of an environment as a folder, as if it had no `__init__.py`.

    `openenv init` writes one that imports its neighbours relatively. pytest would import it before any test below, and
    fail wherever the folder has a name that is no package's, such as my-env.
    """
    if (path / "openenv.yaml").is_file() and (path / "__init__.py").is_file():
        return pytest.Dir.from_parent(parent, path=path)
    return None


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that uses a target once per target, where there are several, and on its own environment."""
    if "openenv_target" not in metafunc.fixturenames:
        return
    from .target import parametrize_target

    parametrize_target(metafunc, _invocation(metafunc.config))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Say in one line which ini key of ours there is not, where warnings are errors: pytest has a traceback for it."""
    try:
        return (yield)
    except pytest.PytestConfigWarning as warning:
        from .settings import unknown_key_problem

        if problem := unknown_key_problem(session.config, str(warning)):
            raise pytest.UsageError(problem) from None
        raise


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Read the marks of the selected tests: servers are sized to the largest cell among them."""
    invocation = _invocation(session.config)
    invocation.read_marks(session.items)
    invocation.lacks_tests = not (invocation.measures or session.testsfailed)
    if invocation.measures and not invocation.is_worker:
        invocation.heed_signals()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Print what would be measured, and run nothing, where `--openenv-plan` asks for that."""
    invocation = _invocation(session.config)
    if not invocation.sources or not invocation.settings.plan or invocation.is_worker:
        return None
    if getattr(session.config.option, "numprocesses", None):
        raise pytest.UsageError("--openenv-plan: nothing is run, so leave out -n")
    from .plan import plan_lines

    reporter: Any = session.config.pluginmanager.getplugin("terminalreporter")
    for line in plan_lines(session.items, invocation.settings):
        reporter.write_line(line)
    return True


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail a test whose marks are wrong, and that test only."""
    _invocation(item.config).current_file = item.path
    declared = item.stash.get(DECLARATION, None)
    if declared is not None and declared.problem is not None:
        pytest.fail(declared.problem, pytrace=False)


@pytest.fixture(scope="session")
def openenv_target(request: pytest.FixtureRequest) -> Generator[Endpoint]:
    """The server to measure: started or attached to once, sized to the largest selected cell."""
    from .target import default_parameter, running_target

    invocation = _invocation(request.config)
    with running_target(invocation, getattr(request, "param", None) or default_parameter(invocation)) as endpoint:
        yield endpoint


@pytest.fixture
def scaling(request: pytest.FixtureRequest, openenv_target: Endpoint) -> Scaling:
    """Measure how many sessions the target holds: `scaling.run()`, judged when the test is over."""
    from .scaling_fixture import make_scaling

    item: pytest.Function = cast(Any, request).node
    runner = make_scaling(_invocation(request.config), item, openenv_target)
    item.stash[SCALING] = runner
    return runner


@pytest.fixture
def openenv_check(request: pytest.FixtureRequest, openenv_target: Endpoint) -> CheckRunner:
    """Ask a check of the target, `openenv_check(check)`, and judge the test by its result: the suite is written so."""
    from .check import make_check_runner

    return make_check_runner(_invocation(request.config), cast(Any, request).node, openenv_target)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Judge the SLO once the test function is over; a failure of its own comes first."""
    try:
        result = yield
    except (pytest.fail.Exception, pytest.skip.Exception) as outcome:
        if "openenv_target" in pyfuncitem.fixturenames:
            from .failing import unawaited_problem

            if problem := unawaited_problem(outcome):
                raise pytest.fail.Exception(problem, pytrace=False) from None
        raise
    runner = pyfuncitem.stash.get(SCALING, None)
    if runner is not None:
        from .failing import judge_test

        judge_test(pyfuncitem, runner)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the result of a sweep; where the test ran in another process it travels on the report, as JSON.

    Summaries show the first line of a failure by what was found.
    """
    found = _failed_by_what_was_found(item, call)
    if found:
        from .failing import shorten_message

        shorten_message(_invocation(item.config), item, call)
    report = yield
    runner = item.stash.get(SCALING, None)
    if found:
        from .failing import shorten_summary

        shorten_summary(report, item, runner)
    if call.when == "call" and runner is not None and runner.sweep is not None:
        invocation = _invocation(item.config)
        if invocation.is_worker or os.getpid() != invocation.pid:
            report.openenv_scale = runner.sweep.view.to_json()  # pyright: ignore[reportAttributeAccessIssue]
        else:
            invocation.add_view(runner.sweep.view)
    return report


def _failed_by_what_was_found(item: pytest.Item, call: pytest.CallInfo[None]) -> bool:
    """Whether a test of ours failed without a traceback: by a verdict, or as it could not be measured."""
    error = call.excinfo.value if call.excinfo is not None else None
    return isinstance(error, pytest.fail.Exception) and not error.pytrace and concerns_plugin(item)


class _ReportReceiver:
    """Gathers the results that arrive on reports, from xdist workers and other processes."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> Generator[None, None, None]:
        payload = getattr(report, "openenv_scale", None)
        if payload is not None:
            self._invocation.add_sent_view(payload)
        if not report.failed or not self._invocation.views:
            return (yield)
        from .failing import whole_failure

        with whole_failure(report, self._invocation):
            return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object | None) -> None:
    """Collect the problems that an xdist worker reports; where it crashed, the run is not complete."""
    invocation = _invocation(node.config)
    invocation.problems += getattr(node, "workeroutput", {}).get(PROBLEMS, ())
    if error is not None:
        invocation.worker_crashed = True


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Generator[None, object, object]:
    """End the run and write its reports, once every server is stopped and every worker is done."""
    result = yield
    invocation = _invocation(session.config)
    if invocation.has_begun() and not invocation.is_worker:
        from .finish import end_status, finish_run

        written = finish_run(invocation, end_status(session, exitstatus, worker_crashed=invocation.worker_crashed))
        if not written and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
    return result


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Show every curve and where the run is."""
    invocation = _invocation(config)
    if (invocation.views or invocation.checks or invocation.problems) and invocation.shows_summary:
        from .finish import show_summary

        show_summary(invocation, terminalreporter)
    if invocation.lacks_tests and "command line" in invocation.sources and not invocation.is_run_command:
        from .settings import lines_to_write

        for line in lines_to_write(invocation.settings):
            terminalreporter.write_line(line, yellow=True)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close the run directory; remove it where it is temporary."""
    if INVOCATION in config.stash:
        config.stash[INVOCATION].close()


def _invocation(config: pytest.Config) -> Invocation:
    return config.stash[INVOCATION]
