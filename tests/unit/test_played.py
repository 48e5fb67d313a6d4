"""Green means that sessions played: what a sweep makes of answers that are errors, and of waits that are ignored."""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path
from typing import Any

import pytest

from measuring import measure
from pytest_openenv_scale.analysis.run import load_run
from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.serialization import encode
from pytest_openenv_scale.engine.allowance import Allowance
from pytest_openenv_scale.engine.sweep import Observer, Sweep, SweepError
from pytest_openenv_scale.reporting.content.tables import samples_table
from pytest_openenv_scale.reporting.content.verdicts import reason_lines
from pytest_openenv_scale.results.manifest import read_manifest
from pytest_openenv_scale.results.outcome import Outcome
from scripted_server import Peer, accepted, error, observation, scripted

BAD = observation(error="unknown tool: 'hello'")


def environment(*, reset: Any = None, step: Any = None, wait_s: float = 0.0):
    """An environment that answers these messages, or plays; `step` may be made of how many sessions are open."""
    opened = 0

    async def script(peer: Peer) -> None:
        nonlocal opened
        await peer.accept()
        opened += 1
        try:
            while (message := await peer.asked())["type"] != "close":
                if message["type"] == "reset":
                    peer.say(reset or observation())
                    continue
                await asyncio.sleep(wait_s)
                peer.say(step(opened) if callable(step) else step or observation())
        finally:
            opened -= 1
        await peer.part()

    return script


async def sweep_of(script, tmp_path: Path, *batches: int, backlog: int | None = None, **details) -> Sweep:
    details = {"action": {"wait_seconds": "$wait"}, **details}
    async with scripted(script) as server:
        endpoint = Endpoint((server.url,), "url", "x", backlog=backlog)
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


async def test_a_batch_larger_than_what_the_kernel_lets_wait_is_noted_with_the_verdict_and_kept(tmp_path):
    sweep = await sweep_of(environment(), tmp_path, 1, 3, backlog=2)
    (view,) = load_run(sweep.run_dir).sweeps
    assert view.curves[0].verdict.notes == sweep.verdicts[0].notes
    assert ["somaxconn=3" in note for note in view.curves[0].verdict.notes] == [True]


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


async def test_a_curve_whose_limit_is_below_its_wait_is_named_and_left_out(tmp_path):
    notes: list[str] = []

    class Listener(Observer):
        def note(self, text: str) -> None:
            notes.append(text)

    details = {"waits": (0.05, 60.0), "slo": {"total_p99": "30s"}, "observer": Listener()}
    sweep = await sweep_of(environment(wait_s=0.06), tmp_path, 1, 2, **details)
    assert (sweep.outcome, [curve.wait for curve in sweep.curves]) == (Outcome.MET, [0.05])
    left_out = "ws at wait 60 s is left out: total_p99 ≤ 30 s is below the wait"
    assert [note for note in notes if "left out" in note] == [f"test_scale.py::test_it: {left_out}"]
    loaded = load_run(sweep.run_dir)
    assert loaded.sweeps[0].record.left_out == (left_out,)
    assert encode(loaded.sweeps[0].curves) == encode(sweep.view.curves)
    assert left_out in [line.text for line in reason_lines(loaded.sweeps[0].curves[0])]


async def test_a_curve_that_is_left_out_leaves_its_share_of_the_budget_to_the_others(tmp_path, monkeypatch):
    shares: list[float | None] = []
    begin = Allowance.begin_curve

    def noted(allowance: Allowance, seconds: float | None, *timing: Any) -> None:
        shares.append(seconds)
        begin(allowance, seconds, *timing)

    monkeypatch.setattr(Allowance, "begin_curve", noted)
    details = {"waits": (0.05, 60.0), "slo": {"total_p99": "30s"}, "budget": 300.0}
    for curves_of_run in (2, 3):
        await sweep_of(environment(wait_s=0.06), tmp_path, 1, curves_of_run=curves_of_run, **details)
    assert shares == [300.0, 150.0]


async def test_where_no_curve_is_left_nothing_is_measured_and_one_line_says_why(tmp_path):
    with pytest.raises(
        SweepError, match=r"^ws at wait 0\.05 s is left out: step_p50 ≤ 10 ms is below the wait, and no "
    ):
        await sweep_of(environment(wait_s=0.06), tmp_path, 1, wait=0.05, slo={"step_p50": "10ms"})
    (record,) = read_manifest(next(tmp_path.iterdir())).sweeps
    assert record.status == "failed"


async def test_a_mode_that_ignores_waits_takes_them_from_itself_alone(tmp_path):
    async def script(peer: Peer) -> None:
        """Wait over WebSocket, and answer every request over HTTP at once."""
        with contextlib.suppress(asyncio.IncompleteReadError):
            while (head := await peer.head()).startswith(b"POST"):
                await peer.reader.readexactly(int(re.search(rb"(?i)content-length: (\d+)", head)[1]))
                body = b'{"observation": {}, "reward": null, "done": false}'
                peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            peer.send(accepted(head))
            while (message := await peer.asked())["type"] != "close":
                await asyncio.sleep(0.12 if message["type"] == "step" else 0.0)
                peer.say(observation())
            await peer.part()

    sweep = await sweep_of(script, tmp_path, 1, modes=("ws", "http"), waits=(0.05, 0.1))
    expected = [("ws", 0.05), ("ws", 0.1), ("http", None)]
    assert [(curve.mode, curve.wait) for curve in sweep.curves] == expected
    assert [(cell.cell.mode, cell.cell.wait, cell.success_rate) for cell in sweep.cells] == [
        (mode, wait, 1.0) for mode, wait in expected
    ]
    loaded = load_run(sweep.run_dir).sweeps[0]
    assert encode(loaded.curves) == encode(sweep.view.curves)


async def test_a_limit_below_a_wait_that_is_ignored_is_judged(tmp_path):
    sweep = await sweep_of(environment(), tmp_path, 1, wait=60.0, slo={"total_p99": "30s"})
    assert (sweep.outcome, [curve.wait for curve in sweep.curves]) == (Outcome.MET, [None])


async def test_a_limit_of_a_wait_that_is_ignored_is_refused(tmp_path):
    """It would judge nothing, and the test would pass."""
    says = r"^mark slo\(wait=0.1\) selects no curve: the environment ignores waits; leave wait= out$"
    with pytest.raises(SweepError, match=says):
        await sweep_of(environment(), tmp_path, 1, wait=0.1, slo={"total_p99": "1s"}, slo_wait=0.1)


async def test_no_overhead_is_negative_where_some_steps_wait_less_than_asked(tmp_path):
    alone = iter([0.12] * 3)

    async def impatient(peer: Peer) -> None:
        await peer.accept()
        while (message := await peer.asked())["type"] != "close":
            await asyncio.sleep(next(alone, 0.0) if message["type"] == "step" else 0.0)
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
