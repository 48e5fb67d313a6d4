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

from goldens import Golden
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


def refusals(done: PytestRun) -> list[tuple[str, int, dict[str, Any]]]:
    """Cause, number of sessions and figures of what refused."""
    return [(refused["cause"], refused["count"], refused["figures"]) for refused in done.refusals()]


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


def test_settings_are_set_then_measured_then_put_back(hub: Hub, tmp_path: Path, golden: Golden) -> None:
    space = hub.add_space(ENV).space
    write(tmp_path)
    done = run(hub, tmp_path, "--openenv-target", ASKED)
    assert done.code == 0, done.output
    (sweep,) = done.sweeps()
    (curve,) = sweep["curves"]
    assert (sweep["cores"], curve["max_batch"], curve["max_batch_per_core"]) == (8, 8, 1.0)
    (changed,) = sweep["notes"]
    assert changed in done.output
    golden(changed)
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


def test_settings_a_kill_left_are_put_back_by_gc(hub: Hub, tmp_path: Path, golden: Golden) -> None:
    space = hub.add_space(ENV).space
    with long_run(hub, tmp_path, ASKED) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert space.requested == "cpu-upgrade"
    golden(gc(hub, tmp_path, "--dry-run"), "would")
    assert space.requested == "cpu-upgrade"
    golden(gc(hub, tmp_path), "did")
    assert (space.requested, space.variables) == ("cpu-basic", {})
    assert gc(hub, tmp_path) == "nothing left behind\n"


def test_a_temporary_space_is_made_measured_and_deleted(hub: Hub, tmp_path: Path, golden: Golden) -> None:
    write(tmp_path)
    done = run(hub, tmp_path, "--openenv-target", f"spaces:{ENV},temporary,app=builtin")
    assert done.code == 0, done.output
    (sweep,) = done.sweeps()
    (curve,) = sweep["curves"]
    assert (sweep["hardware"], curve["max_batch"], curve["max_batch_per_core"]) == ("cpu-basic", 8, 4.0)
    assert "made alice/env" in done.output
    golden("\n".join(sweep["notes"]))
    assert hub.repos == {}
    assert gc(hub, tmp_path) == "nothing left behind\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_temporary_space_is_deleted_when_a_signal_ends_the_run(
    hub: Hub, tmp_path: Path, number: signal.Signals
) -> None:
    with long_run(hub, tmp_path, "spaces,temporary,app=builtin") as process:
        assert len(hub.repos) == 1
        process.send_signal(number)
        process.communicate(timeout=60)
    assert hub.repos == {}


def test_a_temporary_space_a_kill_left_is_deleted_by_gc(hub: Hub, tmp_path: Path, golden: Golden) -> None:
    with long_run(hub, tmp_path, f"spaces:{ENV},temporary,app=builtin") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert ("space", ENV) in hub.repos
    golden(gc(hub, tmp_path))
    assert hub.repos == {}


@pytest.mark.parametrize(("refusal", "how"), [("reset", "connection reset"), ("503", "HTTP 503")])
def test_a_cap_of_the_platform_is_named_apart_from_the_servers_own(
    hub: Hub, tmp_path: Path, refusal: str, how: str
) -> None:
    hub.add_space(ENV, variables={"WORKERS": "1", "MAX_CONCURRENT_ENVS": "200"}, rules=Rules(cap=40, refusal=refusal))
    write(tmp_path, batches="8,64")
    done = run(hub, tmp_path, "--openenv-target", f"spaces:{ENV}")
    figures = {"needed": 64, "held": 40, "slots": 200}
    assert refusals(done) == [("platform_connections", 24, figures)]
    assert [refused["words"] for refused in done.refusals()] == [how]
    assert "CAPACITY_REACHED" not in done.output


def test_the_servers_own_limit_on_a_space_is_the_servers(hub: Hub, tmp_path: Path) -> None:
    hub.add_space(ENV, variables={"WORKERS": "1", "MAX_CONCURRENT_ENVS": "16"}, rules=Rules(cap=256))
    write(tmp_path, batches="8,64")
    done = run(hub, tmp_path, "--openenv-target", f"spaces:{ENV}")
    ((cause, count, figures),) = refusals(done)
    assert (cause, count, figures["limit"], figures["workers"]) == ("capacity", 48, 16, 1)
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
    assert refusals(done) == [("platform_rate", 8, {"needed": 16, "held": 8})]
    assert "(Retry-After: 30 s)" in done.output


def test_http_endpoints_nobody_reaches_are_told(hub: Hub, tmp_path: Path) -> None:
    hub.add_space(ENV, rules=Rules(http=False))
    write(tmp_path, batches="4", modes='["ws", "http"]')
    done = run(hub, tmp_path, "--openenv-target", f"spaces:{ENV}")
    assert refusals(done) == [("http_unreachable", 4, {"needed": 4, "status": "404"})]
    assert [curve["outcome"] for curve in done.sweeps()[0]["curves"]] == ["met", "missed"]
    assert "--openenv-modes ws" in done.refusals()[0]["remedy"]


def test_a_space_that_goes_to_sleep_in_the_middle_is_told(hub: Hub, tmp_path: Path) -> None:
    space = hub.add_space(ENV).space
    with long_run(hub, tmp_path, f"spaces:{ENV}") as process:
        with hub.lock:
            space.halt("SLEEPING")
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    (refused,) = PytestRun(tmp_path, 1, output).refusals()
    assert (refused["cause"], refused["count"], refused["batch"]) == ("platform_stage", 4, 4)
    assert (refused["exit"]["kind"], refused["exit"]["stage"]) == ("stage", "SLEEPING")


def test_hardware_tells_two_runs_on_one_space_apart(hub: Hub, tmp_path: Path) -> None:
    hub.add_space(ENV)
    write(tmp_path, batches="2")
    targets = [f"--openenv-target=spaces:{ENV},hardware={name}" for name in ("cpu-basic", "cpu-upgrade")]
    done = run(hub, tmp_path, *targets)
    assert done.code == 0, done.output
    labels = set(done.rows()["infrastructure"].to_pylist())
    assert labels == {"hf-spaces-hardwarecpu-basic", "hf-spaces-hardwarecpu-upgrade"}
    curves = [curve for sweep in done.sweeps() for curve in sweep["curves"]]
    assert [curve["max_batch_per_core"] for curve in curves] == [1.0, 0.25]
