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
        _judge_sweep(item, scaling.sweep, warn=scaling.settings.inconclusive == "warn")
    elif scaling.began:
        text = "the sweep was begun but not finished, so there is no verdict"
        pytest.fail(f"{item.nodeid}: {text}", pytrace=False)
    elif not scaling.opened_session:
        text = "the test is marked scaling but never calls scaling.run(); call it, or await scaling.run_async()"
        pytest.fail(f"{item.nodeid}: {text}", pytrace=False)


def _judge_sweep(item: pytest.Item, sweep: Sweep, *, warn: bool) -> None:
    from .core.outcome import Outcome
    from .progress import encoding
    from .reports.terminal import failure_text

    if sweep.outcome is Outcome.MET:
        return
    text = failure_text(sweep.view, width=WIDTH, encoding=encoding())
    if sweep.outcome is Outcome.MISSED:
        pytest.fail(text, pytrace=False)
    headlines = [verdict.headline for verdict in sweep.verdicts if verdict.outcome is not Outcome.MET]
    first = f"inconclusive: {headlines[0].removeprefix('SLO inconclusive: ')}"
    if warn:
        item.warn(InconclusiveWarning(first))
        return
    pytest.fail(f"{first}\n\n{text}\n\n--openenv-inconclusive warn lets this pass", pytrace=False)
