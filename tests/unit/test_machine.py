"""What the kernel counts becomes how busy the machine is; a wait for calm ends when there is some, and ends anyway."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_openenv_scale.load import machine
from pytest_openenv_scale.load.machine import (
    MAX_CALM_WAIT_S,
    MachineLoad,
    MachineReading,
    await_calm,
    load_between,
    read_machine,
)

STAT = "cpu  100 0 50 800 0 0 10 40 0 0\ncpu0 1 2 3\nctxt 5\nprocs_running 3\n"
PRESSURE = "some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"


def test_the_counts_are_the_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pressure").mkdir()
    (tmp_path / "stat").write_text(STAT)
    (tmp_path / "pressure" / "cpu").write_text(PRESSURE)
    monkeypatch.setattr(machine, "_PROC", tmp_path)
    monkeypatch.setattr(machine.os, "sysconf", {"SC_CLK_TCK": 100}.__getitem__)
    reading = read_machine()
    assert (reading.cores_s, reading.steal_s, reading.waiting_s, reading.runnable) == (10.0, 0.4, 2.5, 3)


def test_a_system_that_counts_none_of_it_is_calm_as_far_as_anybody_knows(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(machine, "_PROC", tmp_path)
    load = load_between(read_machine(), read_machine())
    assert load == MachineLoad(None, None, None)
    assert load.calm


def test_shares_are_of_all_cores_or_of_the_time() -> None:
    first = MachineReading(10.0, 100.0, 5.0, 2.0, 1)
    assert load_between(first, MachineReading(12.0, 104.0, 6.0, 2.5, 4)) == MachineLoad(0.25, 0.25, 4)


@pytest.mark.parametrize(
    ("load", "calm"),
    [
        (MachineLoad(0.0, 0.0, 1), True),
        (MachineLoad(0.01, 0.1, 2), True),
        (MachineLoad(0.31, 0.0, 1), False),
        (MachineLoad(0.0, 0.9, 1), False),
        (MachineLoad(0.0, 0.0, 5), False),
    ],
)
def test_steal_pressure_and_a_queue_for_the_cores_are_no_calm(load, calm, monkeypatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    assert load.calm is calm


class Machine:
    """A clock that only sleepers advance, on a machine that steals for so many seconds."""

    def __init__(self, busy_s: float) -> None:
        self.now = self.stolen = 0.0
        self._busy_s = busy_s

    def read(self) -> MachineReading:
        return MachineReading(self.now, self.now * 2, self.stolen)

    def sleep(self, seconds: float) -> None:
        self.stolen += seconds if self.now < self._busy_s else 0.0
        self.now += seconds


@given(st.floats(0, 100))
def test_a_wait_ends_soon_after_the_noise_and_is_bounded(busy_s) -> None:
    host = Machine(busy_s)
    calm = await_calm(host.read, host.sleep)
    assert host.now <= min(busy_s + 1.0, MAX_CALM_WAIT_S + 0.3)
    assert calm or busy_s > MAX_CALM_WAIT_S - 1.0
    assert not calm or host.now >= busy_s
