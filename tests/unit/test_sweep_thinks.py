"""A think time from the settings to the sessions, the curve and the record."""

from __future__ import annotations

import asyncio

import pytest

from measuring import measure
from pytest_openenv_scale.config.think import ThinkTime
from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.engine.sweep import Observer
from pytest_openenv_scale.load.ipc import CellRequest
from pytest_openenv_scale.load.runner import LoadGenerator
from scripted_server import Peer, observation, scripted

THINK = ThinkTime("uniform", (0.01, 0.03))


async def playing(peer: Peer) -> None:
    await peer.accept()
    while (await peer.asked())["type"] != "close":
        peer.say(observation())
    await peer.part()


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[CellRequest]:
    """What load processes are asked for."""
    seen: list[CellRequest] = []
    run_cell = LoadGenerator.run_cell

    def keep(generator: LoadGenerator, request: CellRequest, *others, **more):
        seen.append(request)
        return run_cell(generator, request, *others, **more)

    monkeypatch.setattr(LoadGenerator, "run_cell", keep)
    return seen


@pytest.mark.parametrize("arrival", ["hold", "burst", "rate=100", "steady=0.3,ramp=0.1"])
async def test_sessions_that_are_measured_think_and_one_that_plays_alone_does_not(requests, tmp_path, arrival):
    async with scripted(playing) as server:
        sweep = await asyncio.to_thread(
            measure,
            Endpoint((server.url,), "url", "x"),
            tmp_path,
            3,
            think=THINK,
            steps=2,
            arrival=arrival,
            action={"a": 1},
        )
    warm_up, *measured = requests
    assert (warm_up.cell.think, warm_up.think) == ("", None)
    assert {(request.cell.think, request.think) for request in measured} == {("uniform=0.01..0.03", THINK)}
    (curve,) = sweep.curves
    assert (curve.think, curve.arrival) == ("uniform=0.01..0.03", arrival)
    record = sweep.view.record
    assert (record.settings["think"], record.think_mean_s) == ("uniform=0.01..0.03", pytest.approx(0.02))
    pauses = [pause for row in sweep.table["step_pauses"].to_pylist() for pause in row]
    assert len(pauses) >= 6
    assert min(pauses) >= 0.01
    assert set(sweep.table["think"].to_pylist()) == {"uniform=0.01..0.03"}


@pytest.mark.parametrize(("think_s", "noted"), [(0.4, True), (0.01, False)])
async def test_a_steady_state_that_is_short_against_its_sessions_is_said_before(tmp_path, think_s, noted):
    notes: list[str] = []
    observer = Observer()
    observer.note = notes.append
    async with scripted(playing) as server:
        endpoint, think = Endpoint((server.url,), "url", "x"), ThinkTime("fixed", (think_s,))
        await asyncio.to_thread(
            measure, endpoint, tmp_path, 2, think=think, arrival="steady=0.5", action={"a": 1}, observer=observer
        )
    assert sum("few sessions or none end in a steady state" in note for note in notes) == noted


async def test_without_a_think_time_nothing_is_said_of_one(requests, tmp_path):
    async with scripted(playing) as server:
        endpoint = Endpoint((server.url,), "url", "x")
        sweep = await asyncio.to_thread(measure, endpoint, tmp_path, 1, action={"a": 1})
    assert {request.think for request in requests} == {None}
    assert sweep.curves[0].think == ""
    assert "think" not in sweep.view.record.settings
