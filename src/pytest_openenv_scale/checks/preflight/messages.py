"""A few of the messages that no client should send: whether the server answers them as OpenEnv does, and goes on."""

from __future__ import annotations

import time

from pytest_openenv_scale.checks.protocol.cases import CASES
from pytest_openenv_scale.checks.protocol.checks import check_case
from pytest_openenv_scale.checks.subject import Figures, Subject
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult

ASKED = ("bad-json", "unknown-type", "step-without-data", "reset-data-text", "json-array", "binary-frame")
"""The cases of the suite that are asked: they need no action, and sound servers answer them at once."""

_LONGEST_S = 5.0
"""After how many seconds no further message is sent: each takes up to three resets."""


async def odd_messages(subject: Subject) -> CheckResult:
    """Send messages that no client should, each in a session of its own, for 5 s at most but one in any case."""
    results: list[CheckResult] = []
    began = time.monotonic()
    for case in (case for case in CASES if case.id in ASKED):
        if results and time.monotonic() - began > _LONGEST_S:
            break
        results.append(await check_case(case, subject, with_steps=False))
    faults = [result for result in results if result.outcome is CheckOutcome.MISSED]
    doubts = [result for result in results if result.outcome is CheckOutcome.INCONCLUSIVE]
    figures: Figures = {"messages": len(results), "faults": len(faults)}
    count = formatting.count_of(len(results), "message")
    if faults:
        first, *more = faults
        others = tuple(result.headline for result in more)
        return CheckResult(
            CheckOutcome.MISSED, first.headline, first.remedy, (*others, *first.details), figures, {}, first.transcripts
        )
    if doubts:
        return CheckResult(CheckOutcome.INCONCLUSIVE, doubts[0].headline, doubts[0].remedy, figures=figures)
    headline = f"{count} that no client should send got what OpenEnv answers"
    return CheckResult(CheckOutcome.MET, headline, figures=figures)
