"""A server that keeps every fortieth slot, as a user would meet it: sound in a burst, found by a steady state."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_run import PytestRun, run_pytest, write_test

pytestmark = pytest.mark.real

TESTS = Path(__file__).parents[1]
SLOTS = 64


def swept(folder: Path, defect: str, arrival: str, *options: str) -> PytestRun:
    mark = f"@pytest.mark.scaling(batches=[{SLOTS}], waits=[0], modes='ws', steps=2, arrival='{arrival}')\n"
    write_test(folder, f"{mark}@pytest.mark.slo(success=0.99)\ndef test_it(scaling):\n    scaling.run()\n")
    target = f"local:defects.app:app,server=uvicorn,env.DEFECT={defect},env.MAX_CONCURRENT_ENVS={SLOTS}"
    return run_pytest(folder, "--openenv-target", target, *options, PYTHONPATH=str(TESTS))


def steady(folder: Path, defect: str) -> PytestRun:
    return swept(folder, defect, "steady=20s", "--openenv-ramp", "2s", "--openenv-think", "exponential=0.2s")


def test_a_server_that_keeps_every_fortieth_slot_is_sound_in_a_burst(tmp_path: Path) -> None:
    run = swept(tmp_path, "leaked_every_fortieth_slot", "burst")
    assert run.code == 0, run.output
    (repetition,) = run.sweeps()[0]["curves"][0]["cells"][0]["repetitions"]
    assert repetition["successful"] == SLOTS


def test_a_steady_state_finds_that_server_and_names_what_it_lacks(tmp_path: Path) -> None:
    run = steady(tmp_path, "leaked_every_fortieth_slot")
    assert run.code == 1, run.output
    assert [sweep["outcome"] for sweep in run.sweeps()] == ["missed"]
    assert {(refused["cause"], refused["figures"]["limit"]) for refused in run.refusals()} == {("capacity", SLOTS)}
    (repetition,) = run.sweeps()[0]["curves"][0]["cells"][0]["repetitions"]
    judged = [window for window in repetition["windows"] if window["judged"]]
    assert judged[-1]["success_rate"] < judged[0]["success_rate"]
    assert judged[-1]["open_least"] < judged[0]["open_least"]


def test_a_sound_server_passes_the_same_steady_state(tmp_path: Path) -> None:
    run = steady(tmp_path, "none")
    assert run.code == 0, run.output
    (repetition,) = run.sweeps()[0]["curves"][0]["cells"][0]["repetitions"]
    assert (repetition["success_rate"], repetition["failed"]) == (1.0, 0)
