"""`docker` with a real engine: built, run, measured, watched and removed; every failure one clear line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from components import lacking
from docker_engine import (
    BASE_IMAGE,
    EngineUnavailableError,
    docker,
    engine_or_skip,
    run_without_bridge,
    server_wheels,
)
from goldens import Golden
from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.target_spec import parse_target
from pytest_openenv_scale.targets import open_target
from pytest_openenv_scale.targets.docker.container import OWNER_LABEL, RUN_LABEL, Container, ContainerOptions
from pytest_openenv_scale.targets.docker.engine import Engine, read_stats
from pytest_openenv_scale.targets.docker.image import BENCHMARK_TAG, build_image, find_build
from pytest_run import PytestRun, command, environ, run_pytest, write_test

pytestmark = pytest.mark.real

SWEEP = """
@pytest.mark.scaling(batches="{batches}", waits=[0.05])
def test_it(scaling): scaling.run()
"""

HOLD = """
import pathlib, time
def test_hold(openenv_target):
    pathlib.Path("up").touch()
    time.sleep(300)
"""

APP = """
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

taken = []

async def play(socket):
    await socket.accept()
    while (asked := (await socket.receive_json())["type"]) != "close":
        if asked == "step":
            taken.append(bytearray(300 << 20))
        observed = {"observation": {}, "reward": None, "done": False}
        await socket.send_json({"type": "observation", "data": observed})
    await socket.close()

app = Starlette(routes=[WebSocketRoute("/ws", play)])
"""


@pytest.fixture(scope="session")
def engine() -> Generator[str]:
    with engine_or_skip() as host, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", host)
        yield host


@pytest.fixture(scope="session")
def wheels() -> Path:
    try:
        return server_wheels()
    except EngineUnavailableError as error:
        lacking(str(error))


@pytest.fixture(scope="session")
def first_run(engine: str, wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> PytestRun:
    """The packaged Dockerfile measured once; what it builds is there for the other tests."""
    folder = tmp_path_factory.mktemp("packaged")
    write_test(folder, SWEEP.format(batches="1,32"))
    offline = f"wheels={wheels},build.BASE_IMAGE={BASE_IMAGE}"
    target = f"docker,{offline},cpus=1,memory=256m,max_envs=20,nofile=4096,env.TOKEN=s3cret"
    slo = ("--openenv-slo", "max_batch>=32")
    return run_pytest(folder, "--openenv-target", target, *slo, TMPDIR=str(folder))


@pytest.fixture
def benchmark(first_run: PytestRun) -> str:
    assert first_run.sweeps(), first_run.output
    return BENCHMARK_TAG


@pytest.fixture
def folder(benchmark: str, tmp_path: Path) -> Callable[..., Path]:
    """Write an environment's folder with a Dockerfile on the benchmark's image."""

    def write(*lines: str, base: str = benchmark, **files: str) -> Path:
        env = tmp_path / "my_env"
        env.mkdir()
        (env / "Dockerfile").write_text("\n".join([f"FROM {base}", *lines, ""]))
        for name, text in files.items():
            (env / f"{name}.py").write_text(text)
        return env

    return write


def ours() -> set[str]:
    """The containers of any run of this plugin."""
    return set(docker("ps", "--all", "--quiet", "--filter", f"label={OWNER_LABEL}").split())


def eventually(holds: Callable[[], bool], seconds: float = 90.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True


def refusal(target: str, root: Path) -> tuple[str, str]:
    """Return the first line of the error and the rest of it; no container may be left."""
    before = ours()
    with pytest.raises(TargetError) as caught, open_target(parse_target(target), root=root):
        pytest.fail("the target started")
    assert ours() == before
    first, _, rest = str(caught.value).partition("\n")
    return first, rest


def server_samples(run: PytestRun) -> list[dict[str, Any]]:
    report = json.loads((run.run_dir / "report.json").read_text())
    return [cell["server"] for cell in find(report, "server")]


def find(value: Any, key: str) -> list[dict[str, Any]]:
    """Return every object of a JSON document that has `key`."""
    if isinstance(value, list):
        return [match for item in value for match in find(item, key)]
    if not isinstance(value, dict):
        return []
    below = [match for item in value.values() for match in find(item, key)]
    return [value, *below] if key in value else below


# --- one container, end to end


def test_the_packaged_dockerfile_is_built_in_sight_and_judged_by_what_its_container_holds(first_run: PytestRun) -> None:
    output = first_run.output
    assert first_run.code == 1, output
    assert output.index("docker: building") < output.index("local-docker · ws wait")
    assert "local-docker" in output
    (refused,) = first_run.refusals()
    figures = {"needed": 32, "limit": 20, "workers": 1, "held": 20, "successful": 20, "is_key_of_target": True}
    assert (refused["cause"], refused["count"]) == ("capacity", 12)
    assert refused["figures"].items() >= figures.items()
    assert "max_envs=32" in output
    assert "s3cret" not in output
    assert not ours()


def test_limits_and_use_of_the_container_are_in_the_report(first_run: PytestRun) -> None:
    (sweep,) = first_run.sweeps()
    limits = {"workers": 1, "max_envs": 20, "cpus": "1", "memory": "256m", "nofile": 4096}
    assert limits.items() <= sweep["limits"].items()
    assert {"network", "image"} <= sweep["limits"].keys()
    report = (first_run.run_dir / "report.md").read_text()
    assert all(f"{name} {value}" in report for name, value in limits.items())
    peaks = [server["peak"] for server in server_samples(first_run)]
    assert peaks
    for peak in peaks:
        assert peak["cpu_seconds"] > 0
        assert 0 < peak["rss_bytes"] <= 256 << 20
        assert peak["threads"] >= 1
        assert peak["restarts"] == 0


def test_the_packaged_image_runs_as_nobody_special_and_its_health_check_needs_no_curl(
    benchmark: str, tmp_path: Path
) -> None:
    (config,) = json.loads(docker("image", "inspect", "--format", "[{{json .Config}}]", benchmark))
    assert config["User"] == "1000:1000"
    base_size, size = (
        int(docker("image", "inspect", "--format", "{{.Size}}", name)) for name in (BASE_IMAGE, benchmark)
    )
    assert size - base_size < 40 << 20
    kind, *check = config["Healthcheck"]["Test"]
    assert kind == "CMD"
    with open_target(parse_target(f"docker:{benchmark},network=host,workers=2"), root=tmp_path) as endpoint:
        (container,) = ours()
        docker("exec", container, *check)
        assert endpoint.limits["workers"] == 2
        assert endpoint.limits["network"] == "host"
    assert not ours()


def test_a_folder_is_built_and_its_environment_measured(folder: Callable[..., Path]) -> None:
    root = folder("ENV MAX_CONCURRENT_ENVS=64").parent
    write_test(root, SWEEP.format(batches="1,8"))
    target = "docker:./my_env,label=mine,hardware=laptop"
    # A client that a busy machine slows down would leave the cell in doubt.
    run = run_pytest(root, "--openenv-target", target, "--openenv-inconclusive", "warn", TMPDIR=str(root))
    assert run.code == 0, run.output
    assert run.rows().num_rows == 9
    assert set(run.rows()["infrastructure"].to_pylist()) == {"mine"}
    assert "max_envs 64" in (run.run_dir / "report.md").read_text()
    assert not ours()


# --- failures, each a line


def test_an_image_that_is_not_there_is_told_with_what_to_do(engine: str, tmp_path: Path, golden: Golden) -> None:
    first, rest = refusal("docker:nobody/nothing:1,pull=never", tmp_path)
    golden(first)
    assert rest == ""


def test_an_image_that_cannot_be_pulled_is_told_with_the_engines_reason(
    engine: str, tmp_path: Path, golden: Golden
) -> None:
    first, rest = refusal("docker:registry.invalid/nothing:1", tmp_path)
    golden(first, masks={"pulled: [^;]*registry.invalid[^;]*": "pulled: REASON"})
    assert rest == ""


def test_an_older_image_is_not_used_where_the_newest_is_asked_for(engine: str, tmp_path: Path, golden: Golden) -> None:
    first, _ = refusal("docker:registry.invalid/old:1,pull=always", tmp_path)
    assert "pull=missing" not in first
    docker("tag", BASE_IMAGE, "registry.invalid/old:1")
    first, _ = refusal("docker:registry.invalid/old:1,pull=always", tmp_path)
    docker("rmi", "registry.invalid/old:1")
    golden(first, masks={"pulled: [^;]*registry.invalid[^;]*": "pulled: REASON"})


def test_a_build_that_fails_shows_its_last_lines(folder: Callable[..., Path], tmp_path: Path, golden: Golden) -> None:
    folder("RUN echo the reason; exit 7")
    first, rest = refusal("docker:./my_env", tmp_path)
    assert first.endswith(": 7")
    heading, *lines = rest.splitlines()
    assert "the reason" in lines
    # What the engine says of it.
    golden(f"{first}\n{heading}", masks={"failed: .*": "failed: REASON"})


def test_a_server_that_ends_at_its_start_is_told_with_its_code_and_log(
    folder: Callable[..., Path], tmp_path: Path, golden: Golden
) -> None:
    folder("CMD echo no model; exit 3")
    golden("\n".join(refusal("docker:./my_env", tmp_path)))


def test_a_command_that_is_not_in_the_image_is_told_in_the_engines_words(
    folder: Callable[..., Path], tmp_path: Path, golden: Golden
) -> None:
    folder('CMD ["no-such-server"]')
    first, rest = refusal("docker:./my_env", tmp_path)
    golden(first, masks={"start: .*no-such-server.*": "start: REASON"})
    assert rest == ""


def test_a_server_that_listens_elsewhere_is_told_how_to_say_so(
    folder: Callable[..., Path], tmp_path: Path, golden: Golden
) -> None:
    folder('CMD ["python", "-m", "pytest_openenv_scale.server", "--port", "8123"]')
    with open_target(parse_target("docker:./my_env,port=8123"), root=tmp_path) as endpoint:
        assert endpoint.exit_status() is None
    first, _ = refusal("docker:./my_env,start_timeout=3s", tmp_path)
    masks = {r"HOST=\S+ PORT=\d+": "HOST=ADDRESS PORT=PORT", r"127\.\d+\.\d+\.\d+:\d+": "ADDRESS:PORT"}
    golden(first, masks={**masks, r"log ends: .*, 3 s": "log ends: LINE, 3 s"})


@pytest.mark.parametrize("key", ["nofile=100000000", "gpu=0", "cpus=4000"])
def test_a_limit_the_engine_cannot_keep_is_named_by_its_key(
    benchmark: str, tmp_path: Path, golden: Golden, key: str
) -> None:
    if key == "gpu=0" and Path("/dev/nvidia0").exists():
        pytest.skip("there is a GPU here")
    first, rest = refusal(f"docker:{benchmark},{key}", tmp_path)
    _, words, reason = first.split(": ", 2)
    assert reason
    golden(words)
    assert rest == ""


def test_a_server_killed_for_lack_of_memory_misses_with_its_limit_and_the_key_to_change(
    folder: Callable[..., Path],
) -> None:
    root = folder("COPY app.py .", "CMD exec python -m hypercorn app:app -w 0 --bind $HOST:$PORT", app=APP).parent
    write_test(root, SWEEP.format(batches="1"))
    run = run_pytest(root, "--openenv-target", "docker:./my_env,memory=128m", "-m", "scaling", TMPDIR=str(root))
    assert run.code == 1, run.output
    (refused,) = run.refusals()
    assert (refused["cause"], refused["batch"], refused["count"]) == ("server_died", 1, 1)
    assert (refused["exit"]["code"], refused["exit"]["out_of_memory"]) == (137, True)
    assert "memory=128m" in refused["exit"]["text"]
    assert "memory=" in refused["remedy"]
    assert not ours()


# --- watched


@pytest.fixture
def connected(engine: str) -> Generator[Engine]:
    found = Engine.connect()
    yield found
    found.close()


def test_the_engine_of_dockers_context_is_used_where_docker_host_is_unset(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("DOCKER_HOST")
    docker("context", "create", "elsewhere", "--docker", f"host={engine}")
    docker("context", "use", "elsewhere")
    found = Engine.connect()
    assert found.image_id(BASE_IMAGE) is not None
    assert found.is_local
    found.close()
    monkeypatch.setenv("DOCKER_CONTEXT", "nowhere")
    with pytest.raises(TargetError, match="context 'nowhere'"):
        Engine.connect()


def test_what_a_container_uses_is_read_here_as_the_engine_reads_it(connected: Engine, benchmark: str) -> None:
    with Container(connected, benchmark) as container:
        before, after = container.sample(), None
        sample = read_stats(connected.client.api.stats(container.name, stream=False, one_shot=True), 0.0)
        after = container.sample()
        assert before is not None
        assert sample is not None
        assert after is not None
        assert before.cpu_seconds <= sample.cpu_seconds <= after.cpu_seconds
        assert sample.rss_bytes > 0
        assert before.rss_bytes > 0
        docker("kill", container.name)
        assert container.sample() is None
        ended = container.exit_status()
        assert ended is not None
        assert (ended.code, ended.signal, ended.out_of_memory) == (137, "SIGKILL", False)


def test_a_container_that_is_restarted_is_noticed(connected: Engine, benchmark: str) -> None:
    with Container(connected, benchmark, ContainerOptions(network="host")) as container:
        assert (container.restarts(), container.exit_status()) == (0, None)
        docker("restart", "--time", "0", container.name)
        assert container.restarts() == 1
        ended = container.exit_status()
    assert ended is not None
    assert (ended.kind, ended.code) == ("other", None)
    assert "restarted" in str(ended)


def test_a_process_killed_for_lack_of_memory_is_told_while_the_container_lives(
    connected: Engine, folder: Callable[..., Path]
) -> None:
    env = folder("STOPSIGNAL SIGKILL", 'CMD python -c "x = bytearray(300 << 20)"; echo went on; sleep 60')
    image = build_image(connected, find_build(str(env), env), lambda line: None)
    with Container(connected, image, ContainerOptions(memory=64 << 20)) as container:
        assert eventually(lambda: "went on" in container.log_tail())
        assert container.exit_status() is None
        last = container.log_tail().splitlines()[-1]
        assert last.startswith("openenv-scale: ")
        assert "memory=64m" in last


def test_an_engine_without_a_bridge_runs_the_container_on_the_machines_network(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE_IMAGE}\nCMD echo $HOST:$PORT\n")
    output = run_without_bridge(f"""
        import os, pathlib
        from pytest_openenv_scale.targets.docker.container import Container, ContainerOptions
        from pytest_openenv_scale.targets.docker.engine import Engine
        from pytest_openenv_scale.targets.docker.image import build_image, find_build

        os.environ["DOCKER_HOST"] = host
        engine = Engine.connect()
        image = build_image(engine, find_build({str(tmp_path)!r}, pathlib.Path()), lambda line: None)
        with Container(engine, image, ContainerOptions(address="127.0.0.3")) as container:
            engine.client.api.wait(container.name)
            print(container.network, container.exit_status())
            print(container.url, "http://" + container.log_tail())
        engine.close()
    """)
    network, urls = output.splitlines()
    assert network == "host exited with code 0"
    reached, reported = urls.split()
    assert reached == reported
    assert reached.startswith("http://127.0.0.3:")


# --- removed, whatever happens


@pytest.fixture
def running() -> Generator[Callable[..., subprocess.Popen[str]]]:
    """Start pytest in the background; it is killed at the end if it still runs."""
    started: list[subprocess.Popen[str]] = []

    def start(folder: Path, target: str) -> subprocess.Popen[str]:
        folder.mkdir(exist_ok=True)
        write_test(folder, HOLD)
        with (folder / "output").open("w") as output:
            process = subprocess.Popen(
                command("--openenv-target", target),
                cwd=folder,
                env=environ(TMPDIR=str(folder)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_ended_while_it_measures_leaves_no_container(
    benchmark: str, tmp_path: Path, running: Callable[..., Any], number: signal.Signals
) -> None:
    process = running(tmp_path, f"docker:{benchmark}")
    assert eventually((tmp_path / "up").exists), (tmp_path / "output").read_text()
    assert len(ours()) == 1
    process.send_signal(number)
    assert process.wait(90) == pytest.ExitCode.INTERRUPTED
    assert not ours()


def test_a_run_that_is_interrupted_while_its_container_starts_leaves_none(
    folder: Callable[..., Path], tmp_path: Path, running: Callable[..., Any]
) -> None:
    env = folder("STOPSIGNAL SIGKILL", "CMD sleep 300")
    process = running(tmp_path, f"docker:{env}")
    assert eventually(lambda: len(ours()) == 1), (tmp_path / "output").read_text()
    process.send_signal(signal.SIGINT)
    assert process.wait(90) == pytest.ExitCode.INTERRUPTED
    assert not ours()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_while_it_builds_leaves_no_container(
    folder: Callable[..., Path], tmp_path: Path, running: Callable[..., Any], number: signal.Signals
) -> None:
    env = folder("RUN sleep 300")
    before = docker("ps", "--all", "--quiet")
    process = running(tmp_path, f"docker:{env}")
    assert eventually(lambda: docker("ps", "--quiet") != before), (tmp_path / "output").read_text()
    process.send_signal(number)
    process.wait(90)
    # The engine notices by itself that nobody listens any more.
    assert eventually(lambda: docker("ps", "--all", "--quiet") == before)


def test_gc_removes_what_a_killed_run_left_and_nothing_of_a_living_one(
    benchmark: str, tmp_path: Path, running: Callable[..., Any]
) -> None:
    killed, living = (running(tmp_path / name, f"docker:{benchmark}") for name in ("killed", "living"))
    assert eventually(lambda: all((tmp_path / name / "up").exists() for name in ("killed", "living")))
    assert len(ours()) == 2
    killed.kill()
    killed.wait()
    assert len(ours()) == 2

    collected = gc()
    (left,) = ours()
    assert re.fullmatch(rf"removed container \S+ of {benchmark} \(run \S+\)\n", collected)
    assert docker("inspect", "--format", "{{.State.Running}}", left) == "true"
    assert gc() == "nothing left behind\n"
    assert docker("inspect", "--format", f'{{{{index .Config.Labels "{RUN_LABEL}"}}}}', left) not in collected

    living.terminate()
    assert living.wait(90) == pytest.ExitCode.INTERRUPTED
    assert not ours()


def gc() -> str:
    command = [sys.executable, "-m", "pytest_openenv_scale", "gc", "docker"]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_endpoint_outlives_its_container_with_its_last_words(benchmark: str, tmp_path: Path) -> None:
    endpoint: Endpoint
    with open_target(parse_target(f"docker:{benchmark},workers=1"), root=tmp_path) as endpoint:
        assert endpoint.exit_status() is None
    assert "listening on http://" in endpoint.log_tail()
    assert endpoint.sample() is None
