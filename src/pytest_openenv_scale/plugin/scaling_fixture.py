"""What the fixture `scaling` gives a test: `run()`, `await run_async()` and `async with session()`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from pytest_openenv_scale.config.limits import Slo
from pytest_openenv_scale.config.settings import Settings
from pytest_openenv_scale.core.endpoint import Endpoint

from .collection import check_slos_apply, rerun_command, test_name
from .marks import DECLARATION, MarkError
from .target import target_of

if TYPE_CHECKING:
    from pytest_openenv_scale.client.session import ClientSession
    from pytest_openenv_scale.config.workload import Workload
    from pytest_openenv_scale.engine.sweep import Sweep
    from pytest_openenv_scale.results.run_directory import RunDirectory

    from .invocation import Invocation
    from .progress import Progress


@dataclass(frozen=True)
class Task:
    """What one test measures: its name in the run, the server, the settings and the limits, nearest first."""

    test: str
    endpoint: Endpoint
    settings: Settings
    slos: tuple[Slo, ...]
    rerun: str


class Scaling:
    """Measures the curves of one test on one target, once.

    The marks of the test say what is measured and what it must meet; the verdict falls when the test
    function is over. A test that only plays sessions of its own with `session()` need not call `run()`.
    """

    def __init__(
        self,
        task: Task,
        *,
        open_run: Callable[[], RunDirectory],
        hooks: Any,
        progress: Callable[[], Progress | None],
        compare: Callable[[Sweep], Sweep],
        on_measured: Callable[[Sweep], None],
    ) -> None:
        self._task = task
        self._open_run = open_run
        self._hooks = hooks
        self._progress = progress
        self._compare = compare
        self._on_measured = on_measured
        self.began = False
        """Whether the test called `run()` or `run_async()`."""
        self.sweep: Sweep | None = None
        """The result, once `run()` has returned."""
        self.opened_session = False
        """Whether the test asked for a session of its own."""
        self.no_baseline: str | None = None
        """Why the baseline that is named cannot be compared with."""

    @property
    def endpoint(self) -> Endpoint:
        """The server that is measured."""
        return self._task.endpoint

    @property
    def settings(self) -> Settings:
        """What the options and the marks of this test ask for."""
        return self._task.settings

    def run(self) -> Sweep:
        """Measure every curve and return the results; blocks until all is measured.

        The test fails if nothing can be measured, if `run()` was called before, or if it is called while
        an event loop runs in this thread (which it would stop: use `run_async`).
        """
        if is_loop_running():
            self._fail("scaling.run() would block the event loop of an async test; write await scaling.run_async()")
        self._begin()
        return self._finish(self._measure(threading.Event()))

    async def run_async(self) -> Sweep:
        """Measure like `run`, in a thread: the event loop of the test goes on meanwhile.

        Cancelling ends the measurement within about half a second; what was measured is kept.
        """
        self._begin()
        cancelled = threading.Event()
        measuring = asyncio.ensure_future(asyncio.to_thread(self._measure, cancelled))
        try:
            return self._finish(await asyncio.shield(measuring))
        except asyncio.CancelledError:
            cancelled.set()
            await asyncio.wait([measuring])
            measuring.exception()  # It was retrieved: asyncio need not complain about it.
            raise

    def session(self) -> AbstractAsyncContextManager[ClientSession]:
        """Open a WebSocket session of one's own on the server, as the sweeps do; closed with the block.

        `await s.reset(seed=1)`, `await s.step({...})` and `await s.state()` return replies; each is bounded
        by `--openenv-timeout` seconds and raises `SessionFailed`, as opening does.
        """
        from pytest_openenv_scale.client.session import open_session

        self.opened_session = True
        endpoint = self._task.endpoint
        return open_session(endpoint.urls[0], headers=endpoint.headers, timeout_s=self.settings.timeout)

    def _begin(self) -> None:
        if self.began:
            self._fail("scaling.run() was called twice; a test measures once, so write a second test")
        self.began = True

    def _measure(self, cancelled: threading.Event) -> Sweep | str:
        """Return the sweep, or one line that says why nothing can be measured."""
        from pytest_openenv_scale.core.errors import RunError
        from pytest_openenv_scale.engine.sweep import SweepError, measure_sweep

        from .progress import ThreadSafeObserver

        task, progress = self._task, self._progress()
        try:
            workload = self._find_workload()
            if not workload.waits:
                check_slos_apply(task.slos, task.settings.axis("modes"), (None,))
            return measure_sweep(
                endpoint=task.endpoint,
                test=task.test,
                settings=task.settings,
                slos=task.slos,
                run=self._open_run(),
                observer=ThreadSafeObserver(progress, self._hooks, cancelled),
                rerun=task.rerun,
                workload=workload,
            )
        except (SweepError, RunError, MarkError) as error:
            return str(error)
        finally:
            if progress is not None:
                progress.end()

    def _find_workload(self) -> Workload:
        """Decide what sessions send: an action that is written, else what a hook returns, else the server's schema."""
        from pytest_openenv_scale.engine.sweep import find_workload

        settings = self._task.settings
        if settings.action is None:
            workload: Workload | None = self._hooks.pytest_openenv_scale_workload(endpoint=self._task.endpoint)
            if workload is not None:
                return workload if settings.reset is None else replace(workload, reset=settings.reset)
        return find_workload(self._task.endpoint, settings)

    def _finish(self, measured: Sweep | str) -> Sweep:
        if isinstance(measured, str):
            self._fail(measured)
        from pytest_openenv_scale.core.errors import RunError

        self.sweep = measured
        try:
            self.sweep = self._compare(measured)
        except RunError as error:
            self.no_baseline = str(error)
        self._on_measured(self.sweep)
        return self.sweep

    def _fail(self, text: str) -> NoReturn:
        pytest.fail(f"{self._task.test}: {text}", pytrace=False)


def make_scaling(invocation: Invocation, item: pytest.Function, endpoint: Endpoint) -> Scaling:
    """Return what the fixture gives one test on one target."""
    declared = item.stash.get(DECLARATION, None)
    if declared is None:
        pytest.fail(
            f"{item.nodeid}: the fixture scaling needs the mark and must be an argument: write "
            f"@pytest.mark.scaling above def {item.originalname}(scaling)",
            pytrace=False,
        )
    target, target_id = target_of(invocation, item)
    test = test_name(item, target_id)
    task = Task(
        test=test,
        endpoint=endpoint,
        settings=declared.settings,
        slos=declared.slos,
        rerun=rerun_command(item, test, declared.settings, target),
    )

    def compare(sweep: Sweep) -> Sweep:
        baseline = invocation.baseline
        if baseline is None:
            return sweep
        tests = [test_id.partition("[")[0] for test_id in invocation.selection.tests] + list(invocation.selection.tests)
        return baseline.compare(sweep, declared.settings, invocation.run_directory(), tests)

    def add_properties(sweep: Sweep) -> None:
        from pytest_openenv_scale.reporting.json import junit_properties

        item.user_properties.extend(junit_properties(sweep.view))

    return Scaling(
        task,
        open_run=invocation.run_directory,
        hooks=item.ihook,
        progress=lambda: invocation.progress,
        compare=compare,
        on_measured=add_properties,
    )


def is_loop_running() -> bool:
    """Whether an event loop runs in this thread, which a measurement would stop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
