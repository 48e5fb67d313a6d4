"""How a test fails by what was found: judged once it is over, told in short, and whole in what is filed of it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from pytest_openenv_scale.verdict.sweep import SweepView

    from .invocation import Invocation
    from .scaling_fixture import Scaling

WIDTH = 100
"""Columns of the text of a failing test, which is read in logs as often as in terminals."""


_FAILED_SWEEP = "openenv_scale_failed"


class InconclusiveWarning(pytest.PytestWarning):
    """An SLO could not be judged, and `--openenv-inconclusive warn` lets the test pass."""


def warn_inconclusive(item: pytest.Item, text: str) -> None:
    """Let a test pass with a warning; where warnings are errors, fail it with the same line and no traceback."""
    try:
        item.warn(InconclusiveWarning(text))
    except InconclusiveWarning as warning:
        pytest.fail(f"{warning} (warnings are errors here: -W, filterwarnings)", pytrace=False)


def judge_test(item: pytest.Item, scaling: Scaling) -> None:
    """Fail a test whose SLO is not met, or that measured nothing.

    It fails for a limit that is missed or a regression; what cannot be judged fails too, or is a warning.
    """
    if scaling.sweep is not None:
        _judge_view(item, scaling, scaling.sweep.view)
    elif scaling.began:
        pytest.fail("the sweep was begun but not finished, so there is no verdict", pytrace=False)
    elif not scaling.opened_session:
        text = "the test is marked scaling but never calls scaling.run(); call it, or await scaling.run_async()"
        pytest.fail(text, pytrace=False)


def _judge_view(item: pytest.Item, scaling: Scaling, view: SweepView) -> None:
    from pytest_openenv_scale.reporting.content.failures import failure_reasons
    from pytest_openenv_scale.reporting.text.failure import failure_text

    from .progress import encoding

    reasons, missed = failure_reasons(view, scaling.no_baseline)
    if not reasons:
        return
    if not missed and scaling.settings.inconclusive == "warn":
        warn_inconclusive(item, "; ".join(reasons))
        return
    scaling.failed = True
    pytest.fail(failure_text(view, scaling.no_baseline, width=WIDTH, encoding=encoding()), pytrace=False)


def unawaited_problem(outcome: BaseException) -> str | None:
    """Return what to do about an async test that no plugin runs; pytest says less, and before 8.4 only skips it."""
    if not str(outcome).startswith("async def function"):
        return None
    from pytest_openenv_scale.core.system import install_command

    install = install_command("pytest_asyncio")
    mark = "write @pytest.mark.asyncio above it, or asyncio_mode = auto into the ini file"
    return f"no plugin runs this async test: {f'{install}, then {mark}' if install else mark}"


def shorten_message(invocation: Invocation, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Leave the first line of a failure where that is wanted (`--tb=line`), or all was said with another test.

    A server that does not start fails every test that uses it: pytest raises the one exception of a fixture again.
    """
    error: Any = call.excinfo.value if call.excinfo is not None else None
    _, first = invocation.failures.setdefault(id(error), (error, item.nodeid))
    line, newline, _ = str(error.msg).partition("\n")
    if _is_told_in_a_line(invocation):
        error.msg = line
    elif first != item.nodeid and newline:
        error.msg = f"{line}\n  more of it with {first}, above"


def _is_told_in_a_line(invocation: Invocation) -> bool:
    return _traceback_style(invocation) == "line"


def shows_messages(invocation: Invocation) -> bool:
    """Whether pytest prints the whole message of a test that failed."""
    return _traceback_style(invocation) not in ("no", "line")


def _traceback_style(invocation: Invocation) -> str:
    return getattr(invocation.config.option, "tbstyle", "auto")  # Without pytest's terminal there is none.


def shorten_summary(report: pytest.TestReport, item: pytest.Item, scaling: Scaling | None) -> None:
    """Let summaries, JUnit's message and `--tb line` show the first line of a failure, and where the test is.

    The report, which may travel to another process, names the sweep that failed the test.
    """
    crash: Any = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        path, line, _ = item.reportinfo()
        crash.path, crash.lineno = str(path), (line or 0) + 1
        crash.message = crash.message.partition("\n")[0]
    if report.when == "call" and scaling is not None and scaling.sweep is not None and scaling.failed:
        setattr(report, _FAILED_SWEEP, (scaling.sweep.view.test, scaling.sweep.view.target))


def failed_sweep(report: pytest.TestReport) -> tuple[str, str] | None:
    """Return the test and the target of the sweep that failed a test; None where none did."""
    named: tuple[str, str] | None = getattr(report, _FAILED_SWEEP, None)
    return None if named is None else (named[0], named[1])  # Of another process it is a list.


@contextmanager
def whole_failure(report: pytest.TestReport, invocation: Invocation) -> Generator[None]:
    """Meanwhile the report of a failing test holds the blocks that its message refers to, for whoever files it.

    With `-qq`, which has no summary, they stay.
    """
    named, longrepr = failed_sweep(report), cast(Any, report.longrepr)
    view = None if named is None else invocation.views.get(named)
    if view is None or not hasattr(longrepr, "addsection"):
        yield
        return
    from pytest_openenv_scale.reporting.text.failure import SECTION, failure_section

    section = failure_section(view, refusals=_is_told_in_a_line(invocation), width=WIDTH)
    longrepr.addsection(SECTION, section)
    yield
    if invocation.shows_summary:
        longrepr.sections.pop()
