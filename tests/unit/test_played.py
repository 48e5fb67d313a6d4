"""Green means that sessions played: what a sweep makes of answers that are errors, and of waits that are ignored."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from measuring import measure
from pytest_openenv_scale.analysis.run import load_run
from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.engine.sweep import Sweep
from pytest_openenv_scale.reporting.content.tables import samples_table
from pytest_openenv_scale.results.manifest import read_manifest
from pytest_openenv_scale.results.outcome import Outcome
from scripted_server import Peer, error, observation, scripted

BAD = observation(error="unknown tool: 'hello'")


def environment(*, reset: Any = None, step: Any = None, wait_s: float = 0.0):
    """An environment that answers these messages, or plays; `step` may be made of how many sessions are open."""
    opened = 0

    async def script(peer: Peer) -> None:
        nonlocal opened
        await peer.accept()
        opened += 1
        try:
            while (asked := await peer.asked())["type"] != "close":
                if asked["type"] == "reset":
                    peer.say(reset or observation())
                    continue
                await asyncio.sleep(wait_s)
                peer.say(step(opened) if callable(step) else step or observation())
        finally:
            opened -= 1
        await peer.part()

    return script


async def sweep_of(script, tmp_path: Path, *batches: int, **details) -> Sweep:
    details = {"action": {"wait_seconds": "$wait"}, **details}
    async with scripted(script) as server:
        endpoint = Endpoint((server.url,), "url", "x")
        return await asyncio.to_thread(measure, endpoint, tmp_path, *batches, **details)


@pytest.mark.parametrize(
    "script", [environment(reset=BAD), environment(step=BAD), environment(reset=observation(done=True), step=BAD)]
)
async def test_sessions_that_got_errors_only_are_not_measured_and_nothing_passes(script, tmp_path):
    sweep = await sweep_of(script, tmp_path, 2, 4, slo={"max_batch": 4})
    assert sweep.outcome is Outcome.INCONCLUSIVE
    assert sweep.cells == ()
    (verdict,) = sweep.verdicts
    assert [limit.cause for limit in verdict.limits] == ["did_not_play"]
    assert verdict.stopped is None
    (record,) = load_run(sweep.run_dir).record.sweeps
    assert record.warm_ups == (verdict.warm_up,)
    assert not record.warm_ups[0].played
    assert "unknown tool" in record.warm_ups[0].sample.answer + record.warm_ups[0].sample.reset


async def test_what_a_server_without_a_schema_is_sent_is_kept_as_a_guess(tmp_path):
    play = environment()

    async def script(peer: Peer) -> None:
        if peer.number == 0:  # GET /schema
            await peer.head()
            peer.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            await peer.gone()
            return
        await play(peer)

    sweep = await sweep_of(script, tmp_path, 2, action=None)
    (warm_up,) = sweep.view.record.warm_ups
    assert (warm_up.guessed_action, warm_up.made_action) == (True, False)
    assert warm_up.sample.action.startswith('{"wait_seconds":')
    (row,) = samples_table([sweep.view]).rows
    assert "a guess, as there is no /schema" in [cell.text for cell in row]


async def test_whoever_knows_better_measures_all_the_same(tmp_path):
    sweep = await sweep_of(environment(step=BAD), tmp_path, 2, played="any", no_samples=True)
    assert sweep.outcome is Outcome.MET
    assert sweep.cells[0].successful == 2
    assert sweep.cells[0].answered_errors.count == 2
    assert not sweep.cells[0].answered_errors.under_load
    assert sweep.view.record.warm_ups[0].sample is None
    assert sweep.view.record.settings["played"] == "any"


async def test_errors_that_are_part_of_the_game_are_counted_and_fail_nothing(tmp_path):
    moves = iter(range(1_000_000))
    script = environment(step=lambda opened: BAD if next(moves) % 3 == 0 else observation())
    sweep = await sweep_of(script, tmp_path, 12, slo={"success": 1.0})
    assert sweep.outcome is Outcome.MET
    errors = sweep.cells[0].answered_errors
    assert (errors.count, errors.under_load) == (4, False)
    assert errors.errors_alone >= 1


async def test_errors_that_come_under_load_only_are_failures_of_the_environment(tmp_path):
    script = environment(step=lambda opened: BAD if opened > 4 else observation())
    sweep = await sweep_of(script, tmp_path, 4, 8, slo={"success": 1.0})
    assert sweep.outcome is Outcome.MISSED
    fine, bad = sweep.cells
    assert (fine.success_rate, fine.answered_errors) == (1.0, None)
    assert bad.answered_errors.under_load
    (failed,) = bad.errors
    assert (failed.phase, failed.type, failed.code) == ("step", "environment", "answered_error")
    assert failed.count == bad.failed == bad.answered_errors.count
    assert sweep.verdicts[0].max_batch == 4


@pytest.mark.parametrize(("spent_s", "curves"), [(0.0, [None]), (0.12, [0.1])])
async def test_a_wait_that_is_ignored_is_no_axis(spent_s, curves, tmp_path):
    sweep = await sweep_of(environment(wait_s=spent_s), tmp_path, 1, 2, wait=0.1)
    assert [curve.wait for curve in sweep.curves] == curves
    (record,) = read_manifest(sweep.run_dir).sweeps
    assert [curve.wait for curve in record.curves] == curves
    assert record.warm_ups[0].ignores_wait == (curves == [None])
    assert all((cell.phase("overhead") is None) == (curves == [None]) for cell in sweep.cells)


async def test_no_overhead_is_negative_where_some_steps_wait_less_than_asked(tmp_path):
    alone = iter([0.12] * 3)

    async def impatient(peer: Peer) -> None:
        await peer.accept()
        while (asked := await peer.asked())["type"] != "close":
            await asyncio.sleep(next(alone, 0.0) if asked["type"] == "step" else 0.0)
            peer.say(observation())
        await peer.part()

    sweep = await sweep_of(impatient, tmp_path, 2, wait=0.1)
    assert [curve.wait for curve in sweep.curves] == [0.1]
    assert sweep.cells[0].phase("total").max < 0.1
    assert sweep.cells[0].phase("overhead").min == 0.0


async def test_a_refused_reset_is_a_failure_and_not_a_matter_of_playing(tmp_path):
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        peer.say(error("EXECUTION_ERROR", "no task"))
        await peer.gone()

    sweep = await sweep_of(script, tmp_path, 2)
    assert sweep.outcome is Outcome.MISSED
    assert sweep.cells[0].errors[0].type == "environment"
