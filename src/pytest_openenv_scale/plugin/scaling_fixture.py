"""What the fixture `scaling` gives a test: `run()`, `await run_async()` and `async with session()`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from pytest_openenv_scale.config.limits import Slo
from pytest_openenv_scale.config.settings import Settings
from pytest_openenv_scale.core.endpoint import Endpoint

from .collection import check_slos_apply, needs_asyncio, rerun_command, test_name
from .marks import DECLARATION, MarkError
from .target import target_of

if TYPE_CHECKING:
    from pytest_openenv_scale.client.session import ClientSession
    from pytest_openenv_scale.config.workload import Workload
    from pytest_openenv_scale.engine.sweep import Sweep

    from .invocation import Invocation


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

    def __init__(self, task: Task, invocation: Invocation, item: pytest.Function) -> None:
        self._task = task
        self._invocation = invocation
        self._item = item
        self.began = False
        """Whether the test called `run()` or `run_async()`."""
        self.sweep: Sweep | None = None
        """The result, once `run()` has returned."""
        self.failed = False
        """Whether its sweep failed the test."""
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

        Cancelling ends the measurement within about half a second; what was measured is kept. The test fails where
        its event loop is not asyncio's.
        """
        self._require_asyncio("run_async")
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

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[ClientSession]:
        """Open a WebSocket session of one's own on the server, as the sweeps do; closed with the block.

        `await s.reset(seed=1)`, `await s.step({...})` and `await s.state()` return replies; each is bounded
        by `--openenv-timeout` seconds and raises `SessionFailed`, as opening does. The test fails where its event loop
        is not asyncio's.
        """
        from pytest_openenv_scale.client.session import open_session

        self._require_asyncio("session")
        self.opened_session = True
        endpoint = self._task.endpoint
        settings = self.settings
        async with open_session(
            endpoint.urls[0],
            headers=endpoint.headers,
            timeout_s=settings.timeout,
            ping_s=settings.ping,
            network=endpoint.network,
        ) as session:
            yield session

    def skip_where_sessions_do_not_play(self) -> None:
        """Skip the test where an earlier check found that sessions get errors only: one failure is enough.

        Not where that is measured all the same (`--openenv-played any`).
        """
        from pytest_openenv_scale.results.outcome import first_unmet

        first = first_unmet(self._invocation.run_directory().path, self.endpoint.target)
        if first is not None and self.settings.played == "required":
            pytest.skip(f"not measured: sessions do not play, as {first.test} tells")

    def _require_asyncio(self, method: str) -> None:
        if not is_loop_running():
            self._fail(needs_asyncio(f"scaling.{method}()"))

    def _begin(self) -> None:
        if self.began:
            self._fail("scaling.run() was called twice; a test measures once, so write a second test")
        self.began = True

    def _measure(self, cancelled: threading.Event) -> Sweep | str:
        """Return the sweep, or one line that says why nothing can be measured."""
        from pytest_openenv_scale.core.errors import ScaleError
        from pytest_openenv_scale.engine.sweep import measure_sweep

        from .progress import ThreadSafeObserver

        task, progress, hooks = self._task, self._invocation.progress, self._item.ihook
        progress.begin(task.endpoint.label, "looking at the server")
        try:
            workload = chosen_workload(hooks, task.endpoint, task.settings)
            if not workload.waits:
                check_slos_apply(task.slos, task.settings.axis("modes"), (None,))
            return measure_sweep(
                endpoint=task.endpoint,
                test=task.test,
                settings=task.settings,
                slos=task.slos,
                run=self._invocation.run_directory(),
                observer=ThreadSafeObserver(progress, hooks, cancelled),
                rerun=task.rerun,
                workload=workload,
                hints=self._hints(),
                curves_of_run=self._invocation.selection.curves,
            )
        except (ScaleError, MarkError) as error:
            return str(error)
        finally:
            progress.end()

    def _hints(self) -> Mapping[tuple[str, float | None], Sequence[int]]:
        """Return where the curves of this test ended in the baseline; nothing where that cannot be read."""
        from pytest_openenv_scale.core.errors import RunError

        baseline = self._invocation.baseline
        if baseline is None or not self.settings.search:
            return {}
        try:
            return baseline.edges(self._task.test, self._task.endpoint.label)
        except RunError:  # That is said where the sweep is compared.
            return {}

    def _finish(self, measured: Sweep | str) -> Sweep:
        if isinstance(measured, str):
            self._fail(measured)
        from pytest_openenv_scale.core.errors import RunError
        from pytest_openenv_scale.reporting.json import junit_properties

        self.sweep = measured
        try:
            self.sweep = self._compare(measured)
        except RunError as error:
            self.no_baseline = str(error)
        self._item.user_properties.extend(junit_properties(self.sweep.view))
        return self.sweep

    def _compare(self, sweep: Sweep) -> Sweep:
        """Return the sweep with its comparison, where a baseline is named.

        Raises:
            RunError: the baseline cannot be found or read.
        """
        baseline, selected = self._invocation.baseline, self._invocation.selection.tests
        if baseline is None:
            return sweep
        tests = [test.partition("[")[0] for test in selected] + list(selected)
        return baseline.compare(sweep, self.settings, self._invocation.run_directory(), tests)

    def _fail(self, text: str) -> NoReturn:
        pytest.fail(text, pytrace=False)


def make_scaling(invocation: Invocation, item: pytest.Function, endpoint: Endpoint) -> Scaling:
    """Return what the fixture gives one test on one target."""
    declared = item.stash.get(DECLARATION, None)
    if declared is None:
        pytest.fail(
            "the fixture scaling needs the mark and must be an argument: write "
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
        rerun=rerun_command(item, test, declared.settings, target, invocation.run_location.command),
    )
    return Scaling(task, invocation, item)


def chosen_workload(hooks: Any, endpoint: Endpoint, settings: Settings, *, for_checks: bool = False) -> Workload:
    """Decide what sessions send: an action that is written, else what a hook returns, else the server's schema.

    Raises:
        WorkloadError: no action can be made; `for_checks`, which need none, only where the one that is written is none.
    """
    from pytest_openenv_scale.engine.workload import find_workload, workload_of_checks

    workload: Workload | None = None
    if settings.action is None:
        workload = hooks.pytest_openenv_scale_workload(endpoint=endpoint)
    if workload is not None and settings.reset is not None:
        return replace(workload, reset=settings.reset)
    find = workload_of_checks if for_checks else find_workload
    return workload or find(endpoint, settings.action, settings.reset)


def is_loop_running() -> bool:
    """Whether an event loop runs in this thread, which a measurement would stop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
