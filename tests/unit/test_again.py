"""A repetition that only the client left in doubt is measured again, every attempt is kept, and the last one counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.compute as pc
import pytest
from cells import a_curve, a_summary, an_slo, stats
from hypothesis import given
from hypothesis import strategies as st

from measuring import measure
from pytest_openenv_scale.analysis.run import load_run
from pytest_openenv_scale.config.plan import Cell
from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.engine import sweep as engine
from pytest_openenv_scale.engine.sweep import Observer, Sweep
from pytest_openenv_scale.load import runner
from pytest_openenv_scale.metrics.summary import CellSummary, split_attempts
from pytest_openenv_scale.reporting.text.sweep import set_aside_line
from pytest_openenv_scale.results.cell import ClientFinding
from pytest_openenv_scale.results.outcome import Outcome
from pytest_openenv_scale.results.parts import latest_attempts, read_parts
from pytest_openenv_scale.verdict.cell import doubted_for_the_client, judge_cell
from pytest_openenv_scale.verdict.sweep import judge_curve
from scripted_server import CAPACITY, Peer, message, observation, scripted

BUSY = (ClientFinding("cpu", "a load process did not keep up"),)
STALL = (ClientFinding("loop_lag", "a load process stood still for 412 ms (allowed 200 ms)"),)
STALLED = {"loop_lag_max_s": 0.412, "steal_share": 0.31}
ACTION = {"wait_seconds": "$wait"}


async def playing(peer: Peer) -> None:
    """An environment in which every message is answered."""
    await peer.accept()
    while (await peer.asked())["type"] != "close":
        peer.say(observation())
    await peer.part()


class Waits(Observer):
    """Keeps what a sweep tells of its attempts."""

    def __init__(self) -> None:
        self.set_aside: list[int] = []
        self.done: list[int] = []

    def attempt_set_aside(self, cell: Cell, summary: CellSummary) -> None:
        self.set_aside.append(summary.attempt)

    def cell_done(self, cell: Cell, summary: CellSummary) -> None:
        self.done.append(summary.attempt)


@pytest.fixture
def stalling(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[None]]:
    """Let the first attempts at a cell find the client too slow; returns a list of waits for a calm machine."""

    def give(attempts: int) -> list[None]:
        waits: list[None] = []
        findings: Iterator[tuple[ClientFinding, ...]] = iter([(), *[BUSY] * attempts])  # The first is the warm-up.
        monkeypatch.setattr(runner, "check_pace", lambda stats: next(findings, ()))
        monkeypatch.setattr(engine, "await_calm", lambda: waits.append(None))
        return waits

    return give


async def swept(folder: Path, script=playing, *, slo=None, **details) -> tuple[Sweep, Waits]:
    observer = Waits()
    async with scripted(script) as server:
        endpoint = Endpoint((server.url,), "url", "x")
        limits = slo or {"success": 1.0}
        sweep = await asyncio.to_thread(
            measure, endpoint, folder, 3, observer=observer, slo=limits, action=ACTION, **details
        )
    return sweep, observer


async def test_an_attempt_the_client_spoiled_is_repeated_once_the_machine_is_calm(tmp_path, stalling):
    waits = stalling(2)
    sweep, observer = await swept(tmp_path)
    assert sweep.outcome is Outcome.MET
    assert (observer.set_aside, observer.done, len(waits)) == ([1, 2], [3], 2)
    assert [cell.attempt for cell in sweep.cells] == [3]
    assert sweep.table["attempt"].to_pylist() == [3] * 3


async def test_every_attempt_is_kept_and_read_back_as_it_was_judged(tmp_path, stalling):
    stalling(1)
    sweep, _ = await swept(tmp_path)
    assert sweep.run_dir is not None
    run = load_run(sweep.run_dir)
    (curve,) = run.sweeps[0].curves
    assert (curve.verdict,) == sweep.verdicts
    assert ([item.attempt for item in curve.summaries], [item.attempt for item in curve.set_aside]) == ([2], [1])
    assert sorted(run.table()["attempt"].to_pylist()) == [1, 1, 1, 2, 2, 2]
    parts = list(read_parts(sweep.run_dir / "sessions.parquet"))
    assert [part.meta.attempt for part in latest_attempts(parts)] == [2]
    assert pc.unique(latest_attempts(parts)[0].table()["attempt"]).to_pylist() == [2]


async def test_where_the_client_is_at_fault_again_and_again_nobody_can_say(tmp_path, stalling):
    waits = stalling(9)
    sweep, observer = await swept(tmp_path, again=2)
    assert sweep.outcome is Outcome.INCONCLUSIVE
    assert (observer.set_aside, observer.done, len(waits)) == ([1, 2], [3], 2)


async def test_0_turns_it_off(tmp_path, stalling):
    waits = stalling(1)
    sweep, observer = await swept(tmp_path, again=0)
    assert (sweep.outcome, observer.done, waits) == (Outcome.INCONCLUSIVE, [1], [])


async def test_a_miss_that_is_the_servers_own_is_not_measured_again(tmp_path, stalling):
    opened = 0

    async def refusing(peer: Peer) -> None:
        nonlocal opened
        opened += 1
        if opened == 1:
            await playing(peer)  # The warm-up.
        else:
            await peer.accept(message(CAPACITY))
            await peer.part()

    waits = stalling(1)
    sweep, observer = await swept(tmp_path, refusing)
    assert (sweep.outcome, observer.done, waits) == (Outcome.MISSED, [1], [])


# What is repeated


def doubted(*, kinds: tuple[str, ...] = ("loop_lag",), limits=None, **fields) -> bool:
    findings = tuple(ClientFinding(kind, kind) for kind in kinds)
    return doubted_for_the_client(a_summary(8, findings=findings, **fields), an_slo(**(limits or {"success": 1.0})))


@pytest.mark.parametrize("kind", ["loop_lag", "cpu", "process_died"])
def test_what_another_attempt_may_be_without_is_repeated(kind):
    assert doubted(kinds=(kind,))


def test_answers_seen_late_are_where_a_latency_limit_may_hold_without_their_lateness():
    slow = {"phases": {"total": stats(1.1), "total_unqueued": stats(1.1)}, "client": {"session_lag_max_s": 0.2}}
    assert doubted(kinds=("http_lag",), limits={"total_p99": "1s"}, **slow)
    assert doubted(kinds=(), limits={"total_p99": "1s"}, **slow)
    assert not doubted(kinds=("http_lag",), limits={"total_p99": "2s"}, **slow)


@pytest.mark.parametrize("kind", ["descriptors", "ports"])
def test_what_stays_as_it_is_on_this_machine_is_not(kind):
    assert not doubted(kinds=(kind,))
    assert not doubted(kinds=(kind, "loop_lag"))


def test_nor_what_is_in_doubt_for_other_reasons_too_or_for_none_of_the_client():
    assert not doubted(kinds=())
    assert not doubted(kinds=(), client_limited=2)
    assert not doubted(client_limited=2)
    assert not doubted(client={"clock_moved_s": 1.0}, limits={"total_p99": "1s"})
    assert doubted(kinds=("process_died",), client_limited=2)


def test_nor_a_definite_miss():
    assert not doubted(failed=8)


# What counts


@given(st.permutations([(8, 1, 1), (8, 1, 2), (8, 2, 1), (16, 1, 1), (16, 1, 3)]))
def test_of_each_repetition_the_last_attempt_counts_in_whatever_order_they_are_read(places):
    summaries = [a_summary(batch, repetition=repetition, attempt=attempt) for batch, repetition, attempt in places]
    counted, set_aside = split_attempts(summaries)
    assert [(item.batch, item.repetition, item.attempt) for item in counted] == [(8, 1, 2), (8, 2, 1), (16, 1, 3)]
    assert [(item.batch, item.repetition, item.attempt) for item in set_aside] == [(8, 1, 1), (16, 1, 1)]


def test_an_attempt_that_was_set_aside_is_told_and_decides_nothing():
    attempts = [a_summary(8, findings=STALL, client=STALLED, failed=8), a_summary(8, attempt=2)]
    cell = judge_cell(8, attempts, an_slo(success=1.0), 1)
    assert (cell.passed, cell.by_repetition) == (True, (True,))
    (reason,) = cell.reasons
    assert (reason.kind, reason.cause, reason.figures["attempt"]) == ("set_aside", "loop_lag", 1)
    verdict = judge_curve(a_curve(8), attempts, an_slo(max_batch=8))
    assert (verdict.outcome, verdict.max_batches) == (Outcome.MET, (8,))


def test_the_live_line_says_what_was_amiss(golden):
    golden(
        set_aside_line(a_summary(8, findings=(ClientFinding(kind, ""),), client={**STALLED, **figures})).text
        for kind, figures in (
            ("loop_lag", {}),
            ("loop_lag", {"steal_share": None}),
            ("cpu", {"busy_share": 0.97}),
            ("http_lag", {"answer_lag_p99_s": 0.052}),
            ("process_died", {}),
        )
    )
