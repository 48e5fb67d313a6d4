"""The verdict on a test: a failure with one readable text, a warning, or nothing to say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .core.sweep import Sweep
    from .runner import Scaling

WIDTH = 100
"""Columns of the text of a failing test, which is read in logs as often as in terminals."""


class InconclusiveWarning(pytest.PytestWarning):
    """An SLO could not be judged, and `--openenv-inconclusive warn` lets the test pass."""


def judge(item: pytest.Item, scaling: Scaling) -> None:
    """Fail a test whose SLO is not met, or that measured nothing."""
    if scaling.sweep is not None:
        _judge_sweep(item, scaling.sweep, scaling.no_baseline, warn=scaling.settings.inconclusive == "warn")
    elif scaling.began:
        text = "the sweep was begun but not finished, so there is no verdict"
        pytest.fail(f"{item.nodeid}: {text}", pytrace=False)
    elif not scaling.opened_session:
        text = "the test is marked scaling but never calls scaling.run(); call it, or await scaling.run_async()"
        pytest.fail(f"{item.nodeid}: {text}", pytrace=False)


def not_awaited(item: pytest.Item, outcome: BaseException) -> str | None:
    """Return what to do about an async test that no plugin runs; pytest says less, and before 8.4 only skips it."""
    if not str(outcome).startswith("async def function"):
        return None
    from .core.extras import missing

    install = missing("pytest_asyncio")
    mark = "write @pytest.mark.asyncio above it, or asyncio_mode = auto into the ini file"
    return f"{item.nodeid}: no plugin runs this async test: {f'{install}, then {mark}' if install else mark}"


def _judge_sweep(item: pytest.Item, sweep: Sweep, no_baseline: str | None, *, warn: bool) -> None:
    """Fail for a limit that is missed or a regression; what cannot be judged fails too, or is a warning."""
    from .core.comparison import Judgement
    from .core.outcome import Outcome
    from .progress import encoding
    from .reports.terminal import failure_text

    texts: list[str] = []
    doubts: list[str] = []
    if sweep.outcome is not Outcome.MET:
        texts.append(failure_text(sweep.view, width=WIDTH, encoding=encoding()))
        headlines = [verdict.headline for verdict in sweep.verdicts if verdict.outcome is not Outcome.MET]
        doubts.append(headlines[0].removeprefix("SLO inconclusive: "))
    compared = sweep.view.record.comparison
    regressed = compared is not None and compared.outcome is Judgement.REGRESSED
    if compared is not None and compared.outcome in (Judgement.REGRESSED, Judgement.INCONCLUSIVE):
        from .reports.comparison import failure_lines, headline

        first = 0 if regressed and sweep.outcome is not Outcome.MISSED else len(texts)
        texts.insert(first, failure_lines(compared, width=WIDTH, encoding=encoding()))
        doubts.append(f"baseline: {headline(compared).removeprefix('inconclusive: ')}")
    if no_baseline is not None:
        doubts.append(f"no baseline to compare with: {no_baseline}")
    if sweep.outcome is Outcome.MISSED or regressed:
        pytest.fail("\n\n".join(texts), pytrace=False)
    if not doubts:
        return
    first = f"inconclusive: {doubts[0]}"
    if warn:
        item.warn(InconclusiveWarning("; ".join([first, *doubts[1:]])))
        return
    rest = [f"inconclusive: {doubt}" for doubt in doubts[1:]]
    pytest.fail("\n\n".join([first, *rest, *texts, "--openenv-inconclusive warn lets this pass"]), pytrace=False)
