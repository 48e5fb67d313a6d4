"""What the fixture `openenv_check` gives a test of the suite: one check, judged and kept with the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from inspect import isawaitable
from types import MappingProxyType
from typing import TYPE_CHECKING, NoReturn, cast

import pytest

from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.results.outcome import (
    CheckOutcome,
    CheckRecord,
    CheckResult,
    first_unmet,
    skip_unmet,
    write_check,
)

from .collection import rerun_command, test_name
from .failing import WIDTH, warn_inconclusive
from .target import target_of

if TYPE_CHECKING:
    from pytest_openenv_scale.checks.run import Check, Needs
    from pytest_openenv_scale.checks.subject import Subject

    from .invocation import Invocation

SUITE_MARKS: Mapping[str, str] = MappingProxyType(
    {
        "isolation": "sessions never see each other's state",
        "capacity": "a server at its limit refuses clearly, and slots become free again",
        "responsiveness": "a step does not block the other sessions",
        "churn": "sessions that come and go, well or badly, leave nothing behind",
        "protocol": "messages that no client should send get an error or a documented close",
        "determinism": "the same seed and actions give the same observations, alone and among others",
        "endurance": "nothing drifts while sessions go on (--openenv-soak)",
        "fairness": "no session is served much slower than the others",
    }
)
"""The marks of the ready-made suite besides `scaling`, one per subject, with what its tests show."""


@dataclass(frozen=True)
class CheckRunner:
    """Asks checks about one target: `openenv_check(isolation.interleaved)`.

    The result is written into the run; a limit that is missed fails the test, a capability that is not there skips
    it, and what cannot be told follows `--openenv-inconclusive`.
    """

    invocation: Invocation
    item: pytest.Function
    subject: Callable[[], Subject | str]
    calls: list[Check] = field(default_factory=list["Check"], init=False, repr=False)
    """The checks this was called with: at most one."""

    def __call__(self, check: Check, needs: Needs = "steps") -> CheckResult:
        """Ask one check and judge the test by it; at most one per test, and not where an event loop runs.

        Where a session that plays alone cannot do what the check `needs`, the first check of the server fails, and all
        others are skipped: "steps" that are answered with more than errors; "sessions" that open; or none ("http").
        """
        from pytest_openenv_scale.checks.run import run_check
        from pytest_openenv_scale.core.errors import RunError

        from .scaling_fixture import is_loop_running

        if is_loop_running():
            self._fail("openenv_check() would block the event loop of an async test; write the test with def")
        if self.calls:
            self._fail("openenv_check() was called twice; a test asks one check, so write a second test")
        self.calls.append(check)
        subject = self.subject()
        if isinstance(subject, str):
            pytest.fail(subject, pytrace=False)
        progress, label = self.invocation.progress, subject.endpoint.label
        try:
            run = self.invocation.run_directory()
            with (
                progress.activity(label, _check_name(check)),
                run.measure_lock(progress.waits_for_lock, self.invocation.settings.lock_timeout),
            ):
                progress.begin(label, _check_name(check))
                started, began = datetime.now(UTC), time.monotonic()
                result = run_check(subject, self._checked(check), needs)
                if result.unmet is not None and (first := first_unmet(run.path, subject.endpoint.target)):
                    result = skip_unmet(result, f"sessions do not play, as {first.test} tells")
            record = self._make_record(subject.endpoint, result, started, time.monotonic() - began)
            path = write_check(run.path, record)
        except RunError as error:
            self._fail(str(error))
        self._judge(record, str(path) if self.invocation.run_location.kept else None)
        return result

    def _checked(self, check: Check) -> Check:
        """Wrap a check so that a result that cannot be stored fails the test in one line."""

        async def checked(subject: Subject) -> CheckResult:
            awaitable = cast(object, check(subject))
            if not isawaitable(awaitable):
                self._fail(
                    f"the check {_check_name(check)} is not async; write async def {_check_name(check)}(subject)"
                )
            result = cast(object, await awaitable)
            if not isinstance(result, CheckResult):
                kind = "None" if result is None else type(result).__name__
                self._fail(f"the check {_check_name(check)} returned {kind}; return a CheckResult from every path")
            if problem := _result_problem(result):
                self._fail(
                    f"the result of the check {_check_name(check)} cannot be kept: {problem}; "
                    "write figures as finite numbers, text, true, false or None, and words as text"
                )
            return result

        return checked

    def _fail(self, message: str) -> NoReturn:
        pytest.fail(message, pytrace=False)

    def _make_record(self, endpoint: Endpoint, result: CheckResult, started: datetime, took_s: float) -> CheckRecord:
        settings = self.invocation.settings
        target, target_id = target_of(self.invocation, self.item)
        test = test_name(self.item, target_id)
        marks = {mark.name for mark in self.item.iter_markers()}
        return CheckRecord(
            test=test,
            target=endpoint.target,
            infrastructure=endpoint.label,
            subject=next((name for name in SUITE_MARKS if name in marks), "check"),
            result=result,
            started_at=started,
            took_s=took_s,
            rerun=rerun_command(self.item, test, settings, target, self.invocation.run_location.command),
            notes=endpoint.network.notes,
        )

    def _judge(self, record: CheckRecord, kept: str | None) -> None:
        from pytest_openenv_scale.reporting.content.wording import check_properties
        from pytest_openenv_scale.reporting.text.checks import check_failure_text

        from .progress import encoding

        self.item.user_properties.extend(check_properties(record))
        result = record.result
        if result.outcome is CheckOutcome.SKIPPED:
            pytest.skip(result.headline)
        if result.outcome is CheckOutcome.MET:
            return
        if result.outcome is CheckOutcome.INCONCLUSIVE and self.invocation.settings.inconclusive == "warn":
            warn_inconclusive(self.item, f"inconclusive: {result.headline}")
            return
        pytest.fail(check_failure_text(record, kept, width=WIDTH, encoding=encoding()), pytrace=False)


def _check_name(check: Check) -> str:
    return getattr(check, "__name__", type(check).__name__)


def _result_problem(result: CheckResult) -> str | None:
    """Return why a report could not read this result back; None if it can."""
    if not isinstance(cast(object, result.outcome), CheckOutcome):
        return f"its outcome is {result.outcome!r}, not a CheckOutcome"
    try:
        CheckResult.from_json(result.to_json())
    except (TypeError, ValueError) as error:
        return str(error)
    return None


def make_check_runner(invocation: Invocation, item: pytest.Function, endpoint: Endpoint) -> CheckRunner:
    """Return what the fixture gives one test on one target; what is learned of a server is shared by its tests."""

    def get_subject() -> Subject | str:
        subjects = invocation.subjects
        cached = subjects.get(endpoint.target)
        if cached is not None and cached.endpoint is endpoint:
            return cached
        new_subject = _make_subject(invocation, item, endpoint)
        if not isinstance(new_subject, str):
            subjects[endpoint.target] = new_subject
        return new_subject

    return CheckRunner(invocation, item, get_subject)


def _make_subject(invocation: Invocation, item: pytest.Function, endpoint: Endpoint) -> Subject | str:
    """Return the server as checks see it, or one line that says why no session can be played."""
    from pytest_openenv_scale.checks.subject import Subject
    from pytest_openenv_scale.client.http_request import server_schema
    from pytest_openenv_scale.config.workload import WorkloadError

    from .scaling_fixture import chosen_workload

    settings = invocation.settings
    try:
        workload = chosen_workload(item.ihook, endpoint, settings, for_checks=True)
    except WorkloadError as error:
        return str(error)
    return Subject(
        endpoint=endpoint,
        workload=workload,
        max_sessions=settings.batches[-1],
        wait_s=settings.waits[0] if workload.waits else None,
        timeout_s=settings.timeout,
        soak_s=settings.soak,
        seed=settings.seed,
        schema=server_schema(endpoint.urls[0], endpoint.headers, endpoint.network),
        must_play=settings.played == "required",
        ping_s=settings.ping,
        report_progress=invocation.progress.detail,
    )
