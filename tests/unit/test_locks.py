"""Locks that end with their holder."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import pytest

from pytest_openenv_scale.core.errors import RunError
from pytest_openenv_scale.core.files import LifetimeLock, is_locked
from pytest_openenv_scale.core.measure_lock import LockHolder, measure_lock

HOLDS = """
import sys
from pytest_openenv_scale.core.files import LifetimeLock
from pytest_openenv_scale.core.measure_lock import measure_lock
held = LifetimeLock(__import__("pathlib").Path(sys.argv[1]))
with measure_lock(command="pytest test_other.py", run_id="another"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def own_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return {**os.environ, "TMPDIR": str(tmp_path)}


def holder(path, environment):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def end(process, *, kill):
    if kill:
        os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_lock_nobody_holds(tmp_path):
    assert not is_locked(tmp_path / "missing")
    (tmp_path / "lock").touch()
    assert not is_locked(tmp_path / "lock")


def test_a_lock_is_held_until_it_is_released(tmp_path):
    lock = LifetimeLock(tmp_path / "lock")
    assert is_locked(tmp_path / "lock")
    lock.release()
    lock.release()
    assert not is_locked(tmp_path / "lock")


def test_a_lock_ends_when_its_holder_is_killed(tmp_path, own_lock):
    process = holder(tmp_path / "lock", own_lock)
    assert is_locked(tmp_path / "lock")
    end(process, kill=True)
    assert not is_locked(tmp_path / "lock")


def test_a_measurement_waits_for_the_one_before_and_knows_for_whom(tmp_path, own_lock):
    process = holder(tmp_path / "lock", own_lock)
    waited: list[LockHolder] = []

    def on_wait(held_by):
        waited.append(held_by)
        end(process, kill=True)

    began = time.time()
    with measure_lock(on_wait, command="pytest", run_id="ours"):
        pass
    first = waited[0]
    assert (first.pid, first.command, first.run_id) == (process.pid, "pytest test_other.py", "another")
    assert first.since is not None
    assert first.since <= began


def test_it_waits_no_longer_than_it_may_and_says_what_to_do(golden, tmp_path, own_lock):
    process = holder(tmp_path / "lock", own_lock)
    waited: list[LockHolder] = []
    with pytest.raises(RunError) as caught, measure_lock(waited.append, timeout_s=0.0):
        pass
    assert len(waited) == 1
    # The processes of a run take turns: for those of its own it waits in any case.
    with measure_lock(lambda _: end(process, kill=True), timeout_s=0.01, run_id="another"):
        pass
    golden(caught.value, masks={rf"process {process.pid}\b": "process OF THAT", r"since \S+(?= |:)": "since THEN"})


def test_a_holder_of_another_day_is_said_with_its_date():
    noon = datetime(2026, 3, 1, 12, 3, 11).timestamp()
    assert str(LockHolder(7, "pytest", "run", noon)) == "process 7, since 2026-03-01 12:03:11 (pytest)"


@pytest.mark.parametrize("written", [b"", b"1234", b"{", b"[1]", b'{"pid": 1, "unknown": 2}'])
def test_a_holder_that_does_not_tell_is_nobody_known(written):
    assert LockHolder.parse(written) == LockHolder()


@pytest.mark.usefixtures("own_lock")
def test_a_measurement_alone_does_not_wait():
    waited: list[LockHolder] = []
    for _ in range(2):
        with measure_lock(waited.append):
            pass
    assert waited == []


@pytest.mark.usefixtures("own_lock")
def test_a_measurement_inside_a_measurement_raises_instead_of_waiting_for_itself(golden):
    with measure_lock(), pytest.raises(RunError) as caught, measure_lock():
        pass
    golden(caught.value)
    with measure_lock():
        pass


def test_a_lock_that_cannot_be_made_is_one_clear_line(golden, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with (
        pytest.raises(RunError) as caught,
        measure_lock(),
    ):
        pass
    golden(caught.value)


def test_a_symbolic_link_planted_in_its_place_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    victim = tmp_path / "victim"
    victim.write_text("precious")
    Path(tmp_path / f"openenv-scale-{os.getuid()}.lock").symlink_to(victim)
    with pytest.raises(RunError, match="cannot be kept apart"), measure_lock():
        pass
    assert victim.read_text() == "precious"
