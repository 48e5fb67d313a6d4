"""What goes up in the windows of a steady state is told, and decides nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from cells import a_cell, a_summary, an_slo

from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.metrics.windows import Window
from pytest_openenv_scale.reporting.content.cell_verdicts import reason_words
from pytest_openenv_scale.results.cell import ClientFinding
from pytest_openenv_scale.results.outcome import Reason
from pytest_openenv_scale.verdict.cell import judge_cell

RAMP, WIDTH, COUNT = 10, 5, 24
BUSY = (ClientFinding("cpu", "a load process did not keep up"),)


def steady(figures: Callable[[int], dict[str, Any]], *, count: int = COUNT, **fields) -> CellSummary:
    """A steady state of which each window has these figures besides flat and noisy ones."""
    draw = random.Random(4)
    windows = [Window(0.0, RAMP, judged=False, rss_bytes=10**6)]
    for number in range(count):
        flat = {
            "begun": 100,
            "step_p50_s": 0.02 * draw.uniform(0.8, 1.2),
            "rss_bytes": 10**8 + draw.randrange(10**6),
            "threads": draw.randrange(20, 24),
            "descriptors": draw.randrange(200, 210),
        }
        start = RAMP + WIDTH * number
        windows.append(Window(start, start + WIDTH, judged=True, **(flat | figures(number))))
    windows.append(Window(windows[-1].end_s, windows[-1].end_s + 9, judged=False, rss_bytes=10**10))
    cell = a_cell(64, arrival=f"steady={RAMP + WIDTH * count},ramp={RAMP}")
    return a_summary(64, cell=cell, open_least=60, windows=tuple(windows), **fields)


def drifts(summary: CellSummary) -> list[Reason]:
    verdict = judge_cell(64, [summary], an_slo(success=0.5), 1)
    if not summary.findings:
        assert verdict.passed is True
    return [reason for reason in verdict.reasons if reason.kind == "drift"]


RISING: dict[str, Callable[[int], dict[str, Any]]] = {
    "latency": lambda number: {"step_p50_s": 0.02 + 0.002 * number},
    "memory": lambda number: {"rss_bytes": 10**8 + 4 * 2**20 * number},
    "threads": lambda number: {"threads": 20 + 3 * number},
    "descriptors": lambda number: {"descriptors": 200 + 10 * number},
    "failures": lambda number: {"failed": number},
}


@pytest.mark.parametrize("cause", RISING)
def test_what_rises_from_window_to_window_is_told_with_its_pace(golden, cause):
    (reason,) = drifts(steady(RISING[cause]))
    assert reason.cause == cause
    per_second = (RISING[cause](1)[key] - RISING[cause](0)[key] for key in RISING[cause](0))
    slope = next(per_second) / WIDTH / (100 if cause == "failures" else 1)
    assert reason.figures["slope"] == pytest.approx(slope)
    assert reason.figures["per_hour"] == pytest.approx(3600 * slope)
    assert reason.figures["length"] == WIDTH * COUNT
    golden(reason_words(reason))


def test_figures_that_only_waver_do_not_drift():
    assert drifts(steady(lambda number: {})) == []


@pytest.mark.parametrize(
    "figures",
    [
        lambda number: {"rss_bytes": 10**8 * min(number + 1, 5)},
        lambda number: {"rss_bytes": None, "threads": None, "descriptors": None, "step_p50_s": None, "begun": 0},
        lambda number: {"failed": int(number == COUNT - 1)},
    ],
    ids=["grown before a fifth of the time is over", "nothing known", "few failures"],
)
def test_nor_does_what_settles_what_nobody_knows_and_what_happens_once(figures):
    assert drifts(steady(figures)) == []


def test_latency_says_nothing_of_the_server_where_the_client_was_in_trouble():
    both = steady(lambda number: RISING["latency"](number) | RISING["memory"](number), findings=BUSY)
    assert [reason.cause for reason in drifts(both)] == ["memory"]


def test_a_few_windows_are_no_series():
    assert drifts(steady(RISING["memory"], count=9)) == []
