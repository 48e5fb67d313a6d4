"""Whole runs on a Space: the real huggingface_hub, a stand-in of the Hub, a real server behind a platform's front."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from hub import Hub, hub
from hub.space_host import Rules
from pytest_run import PytestRun, command, environ, run_pytest, write_test

pytest.importorskip("huggingface_hub", reason="needs the huggingface_hub package")
pytestmark = pytest.mark.stand_in
__all__ = ["hub"]
ENV = "alice/env"
TEST = """
@pytest.mark.scaling(batches="{batches}", waits=[{wait}], modes={modes})
def test_it(scaling):
    scaling.run()
"""
ASKED = f"spaces:{ENV},hardware=cpu-upgrade,workers=2,max_envs=64"


def write(folder: Path, batches: str = "1,8", wait: str = "0.02", modes: str = '["ws"]') -> None:
    write_test(folder, TEST.format(batches=batches, wait=wait, modes=modes))


def run(hub: Hub, folder: Path, *arguments: str) -> PytestRun:
    done = run_pytest(folder, *arguments, **hub.environ(folder))
    return PytestRun(done.folder, done.code, " ".join(done.output.split()))


def gc(hub: Hub, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest_openenv_scale", "gc", "spaces", *arguments],
        env=environ(**hub.environ(folder)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def changes(hub: Hub) -> list[str]:
    return [one.path.rpartition("/")[2] for one in hub.requests if one.method != "GET"]


def eventually(holds: Callable[[], Any], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def long_run(hub: Hub, folder: Path, target: str) -> Generator[subprocess.Popen[str]]:
    """A run in its second curve, whose sessions take minutes."""
    write(folder, batches="4", wait="0.02, 120")
    process = subprocess.Popen(
        command("--openenv-target", target),
        cwd=folder,
        env=environ(**hub.environ(folder)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    try:
        # Readiness, the warm-up, and four sessions of each curve.
        eventually(lambda: _sessions(hub) >= 10 or process.poll() is not None)
        assert process.poll() is None, process.stdout and process.stdout.read()
        yield process
    finally:
        process.kill()
        process.communicate()


def _sessions(hub: Hub) -> int:
    """WebSockets that were opened on any Space."""
    with hub.lock:
        spaces = [repo.space for repo in hub.repos.values() if repo.space is not None]
    return sum(head.startswith(b"GET /ws") for space in spaces for head in space.front.seen)


def test_settings_are_set_then_measured_then_put_back(hub: Hub, tmp_path: Path) -> None:
    space = hub.add_space(ENV).space
    write(tmp_path)
    done = run(hub, tmp_path, "--openenv-target", ASKED)
    assert done.code == 0, done.output
    assert "hf-spaces · ws · wait 0.02 s · hold · 1 rep · 8 cores" in done.output
    assert "max batch ≥ 8 (1 per core)" in done.output
    assert "hardware cpu-basic → cpu-upgrade, sleep time 3600 s" in done.output
    rows = done.rows()
    assert set(rows["infrastructure"].to_pylist()) == {"hf-spaces"}
    assert set(rows["hardware"].to_pylist()) == {"cpu-upgrade"}
    assert pc.all(rows["success"]).as_py()
    assert changes(hub) == ["variables", "variables", "hardware", "hardware", "variables", "variables"]
    assert (space.requested, space.variables) == ("cpu-basic", {})
    assert gc(hub, tmp_path) == "nothing left behind\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_settings_are_put_back_when_a_signal_ends_the_run(hub: Hub, tmp_path: Path, number: signal.Signals) -> None:
    space = hub.add_space(ENV).space
    with long_run(hub, tmp_path, ASKED) as process:
        assert (space.requested, sorted(space.variables)) == ("cpu-upgrade", ["MAX_CONCURRENT_ENVS", "WORKERS"])
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 2, output
    assert (space.requested, space.variables) == ("cpu-basic", {})
    assert gc(hub, tmp_path) == "nothing left behind\n"


def test_settings_a_kill_left_are_put_back_by_gc(hub: Hub, tmp_path: Path) -> None:
    space = hub.add_space(ENV).space
    with long_run(hub, tmp_path, ASKED) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert space.requested == "cpu-upgrade"
    assert "alice/env: hardware cpu-basic" in gc(hub, tmp_path, "--dry-run")
    assert space.requested == "cpu-upgrade"
    assert gc(hub, tmp_path).startswith("removed changed settings of the Space alice/env: hardware cpu-basic")
    assert (space.requested, space.variables) == ("cpu-basic", {})
    assert gc(hub, tmp_path) == "nothing left behind\n"


def test_a_temporary_space_is_made_measured_and_deleted(hub: Hub, tmp_path: Path) -> None:
    write(tmp_path)
    done = run(hub, tmp_path, "--openenv-target", f"spaces:{ENV},temporary")
    assert done.code == 0, done.output
    assert "spaces: made alice/env for this run, private, cpu-basic" in done.output
    assert "max batch ≥ 8 (4 per core)" in done.output
    assert hub.repos == {}
    assert gc(hub, tmp_path) == "nothing left behind\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_temporary_space_is_deleted_when_a_signal_ends_the_run(
    hub: Hub, tmp_path: Path, number: signal.Signals
) -> None:
    with long_run(hub, tmp_path, "spaces,temporary") as process:
        assert len(hub.repos) == 1
        process.send_signal(number)
        process.communicate(timeout=60)
    assert hub.repos == {}


def test_a_temporary_space_a_kill_left_is_deleted_by_gc(hub: Hub, tmp_path: Path) -> None:
    with long_run(hub, tmp_path, f"spaces:{ENV},temporary") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert ("space", ENV) in hub.repos
    assert gc(hub, tmp_path).startswith("removed temporary Space alice/env (run ")
    assert hub.repos == {}


@pytest.mark.parametrize(("refusal", "how"), [("reset", "connection reset"), ("503", "HTTP 503")])
def test_a_cap_of_the_platform_is_named_apart_from_the_servers_own(
    hub: Hub, tmp_path: Path, refusal: str, how: str
) -> None:
    hub.add_space(ENV, variables={"WORKERS": "1", "MAX_CONCURRENT_ENVS": "200"}, rules=Rules(cap=40, refusal=refusal))
    write(tmp_path, batches="8,64")
    done = run(hub, tmp_path, "--openenv-target", f"spaces:{ENV}")
    assert (
        "the platform refused 24 sessions at batch 64: connections to the Space were turned away in the handshake "
        f"({how}) with 40 sessions open; the server, whose own limit is 200, did not say it was full → "
        "keep to 40 sessions on one Space"
    ) in done.output
    assert "CAPACITY_REACHED" not in done.output


def test_the_servers_own_limit_on_a_space_is_the_servers(hub: Hub, tmp_path: Path) -> None:
    hub.add_space(ENV, variables={"WORKERS": "1", "MAX_CONCURRENT_ENVS": "16"}, rules=Rules(cap=256))
    write(tmp_path, batches="8,64")
    done = run(hub, tmp_path, "--openenv-target", f"spaces:{ENV}")
    assert "the server refused 48 sessions at batch 64: CAPACITY_REACHED at 16 sessions = 1 worker × 16" in done.output
    assert "the platform" not in done.output


def test_both_limits_are_named_each_with_its_share(hub: Hub, tmp_path: Path) -> None:
    hub.add_space(ENV, variables={"WORKERS": "1", "MAX_CONCURRENT_ENVS": "16"}, rules=Rules(cap=24))
    write(tmp_path, batches="64")
    rows = run(hub, tmp_path, "--openenv-target", f"spaces:{ENV}").rows()
    kinds = set(rows["error_type"].drop_null().to_pylist())
    assert kinds >= {"capacity"}
    assert kinds <= {"capacity", "connection_reset"}


def test_429_is_told_with_how_long_to_wait(hub: Hub, tmp_path: Path) -> None:
    hub.add_space(ENV, rules=Rules(cap=8, refusal="429"))
    write(tmp_path, batches="16")
    done = run(hub, tmp_path, "--openenv-target", f"spaces:{ENV}")
    assert (
        "the platform refused 8 sessions at batch 16: HTTP 429 Too Many Requests (Retry-After: 30 s), "
        "from the platform in front of the Space, with 8 sessions open"
    ) in done.output


def test_http_endpoints_nobody_reaches_are_told(hub: Hub, tmp_path: Path) -> None:
    hub.add_space(ENV, rules=Rules(http=False))
    write(tmp_path, batches="4", modes='["ws", "http"]')
    done = run(hub, tmp_path, "--openenv-target", f"spaces:{ENV}")
    assert "the HTTP endpoints of this Space cannot be reached (POST /reset was answered 404)" in done.output
    assert "measure it over its WebSocket: --openenv-modes ws" in done.output


def test_a_space_that_goes_to_sleep_in_the_middle_is_told(hub: Hub, tmp_path: Path) -> None:
    space = hub.add_space(ENV).space
    with long_run(hub, tmp_path, f"spaces:{ENV}") as process:
        with hub.lock:
            space.halt("SLEEPING")
        output, _ = process.communicate(timeout=120)
    told = " ".join(output.split())
    assert process.returncode == 1
    assert "the Space went to sleep (stage SLEEPING) at batch 4" in told, output
    assert "the platform refused 4 sessions at batch 4: the Space went to sleep (stage SLEEPING) → " in told


def test_hardware_tells_two_runs_on_one_space_apart(hub: Hub, tmp_path: Path) -> None:
    hub.add_space(ENV)
    write(tmp_path, batches="2")
    targets = [f"--openenv-target=spaces:{ENV},hardware={name}" for name in ("cpu-basic", "cpu-upgrade")]
    done = run(hub, tmp_path, *targets)
    assert done.code == 0, done.output
    labels = set(done.rows()["infrastructure"].to_pylist())
    assert labels == {"hf-spaces-hardwarecpu-basic", "hf-spaces-hardwarecpu-upgrade"}
    assert "max batch ≥ 2 (1 per core)" in done.output
    assert "max batch ≥ 2 (0.25 per core)" in done.output
