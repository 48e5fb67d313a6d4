"""Locks that end with their holder."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pytest_openenv_scale.core.errors import RunError
from pytest_openenv_scale.core.files import LifetimeLock, is_locked, measure_lock

HOLDS = """
import sys
from pytest_openenv_scale.core.files import LifetimeLock, measure_lock
held = LifetimeLock(__import__("pathlib").Path(sys.argv[1]))
with measure_lock():
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


def test_a_measurement_waits_for_the_one_before_and_says_for_whom(golden, tmp_path, own_lock):
    process = holder(tmp_path / "lock", own_lock)
    waited: list[str] = []

    def on_wait(message):
        waited.append(message)
        end(process, kill=True)

    with measure_lock(on_wait):
        pass
    golden(waited, masks={rf"process {process.pid}\b": "process OF THAT"})


@pytest.mark.usefixtures("own_lock")
def test_a_measurement_alone_does_not_wait():
    waited: list[str] = []
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
