"""The docker target's keys, and what it asks of an engine: no engine runs here, a fake one writes down what it gets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable, Generator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from goldens import Golden
from pytest_openenv_scale.core.errors import GrammarError, TargetError
from pytest_openenv_scale.core.target_spec import parse_target, redact_target
from pytest_openenv_scale.targets import gc, open_target
from pytest_openenv_scale.targets.common.files import write_own_wheel
from pytest_openenv_scale.targets.common.leftovers import deferring_interrupts, graceful_signals, owner_label
from pytest_openenv_scale.targets.common.options import format_memory, memory_size, processors
from pytest_openenv_scale.targets.common.sampling import control_group
from pytest_openenv_scale.targets.docker import target
from pytest_openenv_scale.targets.docker.container import OWNER_LABEL, RUN_LABEL, Container, ContainerOptions
from pytest_openenv_scale.targets.docker.engine import Engine, read_exit, read_stats, split_tag
from pytest_openenv_scale.targets.docker.image import Build, build_image, find_build, is_path

RUNNING = {"Running": True, "StartedAt": "2026-01-01T00:00:00.1Z", "Pid": 0}
pytest.importorskip("docker", reason="needs the docker package")


class Refused(Exception):
    """As the docker package tells what the engine answered."""

    def __init__(self, status: int, explanation: str) -> None:
        super().__init__(explanation)
        self.explanation = explanation
        self.response = SimpleNamespace(status_code=status)


class FakeContainer:
    def __init__(self, engine: FakeEngine, arguments: dict[str, Any]) -> None:
        self.engine = engine
        self.arguments = arguments
        self.id = self.name = arguments["name"]
        self.labels = arguments["labels"]
        self.attrs: dict[str, Any] = {}

    def start(self) -> None:
        if self.engine.start_error and self.engine.start_errors_on in self.arguments:
            raise self.engine.start_error
        self.reload()

    def reload(self) -> None:
        if self.name not in self.engine.there:
            raise Refused(404, "no such container")
        ports = {f"{port}": [{"HostPort": "40001"}] for port in self.arguments.get("ports", {})}
        pairs = [f"{name}={value}" for name, value in self.arguments["environment"].items()]
        self.attrs = {
            "Id": self.name,
            "RestartCount": self.engine.restarts,
            "State": {**RUNNING, **self.engine.state},
            "Config": {"Env": ["WORKERS=3", *pairs], "Image": self.arguments["image"]},
            "NetworkSettings": {"Ports": ports if self.engine.publishing_works else {}},
        }

    def logs(self, tail: Any) -> bytes:
        return b"one\ntwo\nthree\n"

    def stats(self, **_: Any) -> dict[str, Any]:
        return STATS

    def stop(self, timeout: int) -> None:
        self.engine.said.append("stop")

    def remove(self, force: bool, v: bool) -> None:
        self.engine.remove_container(self.name)


class FakeEngine:
    """What of `docker.DockerClient` is used."""

    def __init__(
        self, *, bridge: bool = True, publishing_works: bool = True, image: dict[str, Any] | None = None
    ) -> None:
        self.publishing_works = publishing_works
        self.there: dict[str, FakeContainer] = {}
        self.created: list[dict[str, Any]] = []
        self.said: list[str] = []
        self.state: dict[str, Any] = {}
        self.restarts = 0
        self.start_error: Exception | None = None
        self.start_errors_on = "name"
        self.oom_events = 0
        drivers = ["host", "null", *(["bridge"] if bridge else [])]
        self.networks = SimpleNamespace(list=lambda: [SimpleNamespace(attrs={"Driver": name}) for name in drivers])
        stub_image = SimpleNamespace(id="sha256:abc", attrs={"Config": image or {}})
        self.images = SimpleNamespace(get=lambda name: stub_image)
        self.containers = SimpleNamespace(create=self.create, list=lambda **_: list(self.there.values()))
        self.api = SimpleNamespace(base_url="http+docker://localhost", remove_container=self.remove_container)

    def info(self) -> dict[str, int]:
        return {"NCPU": 4}

    def create(self, **arguments: Any) -> FakeContainer:
        self.created.append(arguments)
        container = self.there[arguments["name"]] = FakeContainer(self, arguments)
        return container

    def remove_container(self, name: str, **_: Any) -> None:
        if name not in self.there:
            raise Refused(404, "no such container")
        del self.there[name]

    def events(self, **_: Any) -> list[object]:
        return [object()] * self.oom_events

    def close(self) -> None:
        pass


STATS = {
    "cpu_stats": {"cpu_usage": {"total_usage": 2_500_000_000}},
    "memory_stats": {"usage": 3_000_000, "stats": {"inactive_file": 1_000_000}},
    "pids_stats": {"current": 7},
}


STARTED: list[Container] = []


@pytest.fixture(autouse=True)
def local_engine(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    yield
    while STARTED:
        STARTED.pop().stop()


def started(engine: FakeEngine, **options: Any) -> Container:
    container = Container(Engine(engine), "env", ContainerOptions(**options))
    STARTED.append(container)
    container.start()
    return container


# --- keys


@pytest.mark.parametrize(
    "text",
    [
        "docker:x,memory=lots",
        "docker:x,memory=5m",
        "docker:x,cpus=0",
        "docker:x,cpus=nan",
        "docker:x,pull=sometimes",
        "docker:x,network=bridge",
        "docker:x,mem=1g",
        "docker:./x,pull=never",
        "docker:x,build.A=1",
        "docker:./x,wheels=w",
    ],
)
def test_a_key_that_cannot_be_used_is_refused_before_anything_starts(golden: Golden, text: str) -> None:
    with pytest.raises(GrammarError) as caught:
        open_target(parse_target(text), root=Path())
    golden(caught.value)
    assert "\n" not in str(caught.value)


def test_every_key_of_the_documentation_is_taken() -> None:
    text = (
        "docker:x,workers=2,max_envs=5,port=80,cpus=1.5,memory=512m,pull=always,nofile=64,network=host,gpu=0,label=a,"
        "cores=3,hardware=big,env.A=b"
    )
    assert open_target(parse_target(text), root=Path()).spec.startswith("docker:x,cores=3,cpus=1.5,env.A=b")
    assert open_target(parse_target("docker,wheels=w,build.A=1"), root=Path()).spec == "docker,build.A=1,wheels=w"


@pytest.mark.parametrize(
    ("text", "value"), [("6m", 6 * 2**20), ("1.5g", 1536 * 2**20), ("1GiB", 2**30), ("8000000", 8_000_000)]
)
def test_memory_is_written_as_for_docker(text: str, value: int) -> None:
    assert memory_size(text, "memory") == value


@pytest.mark.parametrize(
    ("value", "text"), [(64 * 2**20, "64m"), (1536 * 2**20, "1.5g"), (2**30, "1g"), (8_000_001, "8000001")]
)
def test_memory_is_told_as_it_is_written(value: int, text: str) -> None:
    assert format_memory(value) == text
    assert memory_size(text, "memory") == value


def test_processors_may_be_parts_of_one() -> None:
    assert processors("0.5", "cpus") == 0.5


@pytest.mark.parametrize(
    ("name", "path"), [("./a", True), ("../a", True), ("/a", True), ("~/a", True), ("a/b:1", False)]
)
def test_what_begins_like_a_path_is_one(name: str, path: bool) -> None:
    assert is_path(name) is path


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("a", ("a", "latest")),
        ("a:1", ("a", "1")),
        ("host:5000/a", ("host:5000/a", "latest")),
        ("host:5000/a:1", ("host:5000/a", "1")),
        ("a@sha256:1", ("a@sha256:1", None)),
    ],
)
def test_an_image_is_pulled_by_its_tag_and_never_by_all_of_them(image: str, parts: tuple[str, str | None]) -> None:
    assert split_tag(image) == parts


def test_a_secret_build_argument_is_not_shown() -> None:
    assert redact_target(parse_target("docker:./x,build.API_TOKEN=s3cret")) == "docker:./x,build.API_TOKEN=***"


# --- how it is run and reached


def test_a_port_is_published_on_the_loopback_address_where_the_engine_has_a_bridge() -> None:
    engine = FakeEngine()
    container = started(engine)
    (arguments,) = engine.created
    assert arguments["ports"] == {"8000/tcp": ("127.0.0.1", None)}
    assert arguments["environment"] == {"HOST": "0.0.0.0", "PORT": "8000"}
    assert (container.url, container.network) == ("http://127.0.0.1:40001", "publish")
    assert container.env["WORKERS"] == "3"


def test_without_a_bridge_the_container_gets_a_free_port_of_the_machine() -> None:
    engine = FakeEngine(bridge=False)
    container = started(engine)
    (arguments,) = engine.created
    port = arguments["environment"]["PORT"]
    assert arguments["network_mode"] == "host"
    assert arguments["environment"]["HOST"] == "127.0.0.1"
    assert (container.url, container.network) == (f"http://127.0.0.1:{port}", "host")
    assert "ports" not in arguments


def test_an_engine_that_ignores_the_port_is_noticed_and_the_container_run_again_on_the_machines_network() -> None:
    engine = FakeEngine(publishing_works=False)
    container = started(engine)
    assert [made.get("network_mode") for made in engine.created] == [None, "host"]
    assert list(engine.there) == [engine.created[1]["name"]]
    assert container.network == "host"


def test_an_engine_that_has_lost_its_bridge_runs_the_container_on_the_machines_network() -> None:
    engine = FakeEngine()
    arguments = "failed to create endpoint x on network bridge: adding interface v to bridge docker0 failed"
    engine.start_error = Refused(500, arguments)
    engine.start_errors_on = "ports"
    assert started(engine).network == "host"
    assert len(engine.there) == 1


def test_a_port_that_must_be_published_and_is_not_is_an_error_that_leaves_nothing(golden: Golden) -> None:
    engine = FakeEngine(publishing_works=False)
    with pytest.raises(TargetError) as caught:
        started(engine, network="publish")
    golden(caught.value)
    assert not engine.there


@pytest.mark.parametrize(
    ("options", "image", "port"),
    [
        ({"port": 7000}, {"ExposedPorts": {"80/tcp": {}}}, 7000),
        ({"env": {"PORT": "7001"}}, {}, 7001),
        ({}, {"Env": ["PORT=7002"], "ExposedPorts": {"80/tcp": {}}}, 7002),
        ({}, {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}}, 80),
        ({}, {"ExposedPorts": {"80/tcp": {}, "90/tcp": {}}}, 8000),
    ],
)
def test_the_port_inside_is_the_one_given_or_the_one_the_image_tells(
    options: dict[str, Any], image: dict[str, Any], port: int
) -> None:
    engine = FakeEngine(image=image)
    started(engine, **options)
    assert list(engine.created[0]["ports"]) == [f"{port}/tcp"]
    assert engine.created[0]["environment"]["PORT"] == str(port)


def test_an_engine_elsewhere_is_reached_at_its_own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://10.1.2.3:2376")
    engine = FakeEngine()
    container = started(engine)
    assert engine.created[0]["ports"] == {"8000/tcp": ("0.0.0.0", None)}
    assert container.url == "http://10.1.2.3:40001"


def test_limits_and_labels_reach_the_engine() -> None:
    engine = FakeEngine()
    started(engine, cpus=1.5, memory=64 * 2**20, nofile=99, gpu="0", run_id="run-1", env={"A": "b"})
    (arguments,) = engine.created
    assert arguments["nano_cpus"] == 1_500_000_000
    assert (arguments["mem_limit"], arguments["memswap_limit"]) == (64 * 2**20, 64 * 2**20)
    assert (arguments["ulimits"][0]["soft"], arguments["ulimits"][0]["hard"]) == (99, 99)
    assert arguments["device_requests"][0]["device_ids"] == ["0"]
    assert arguments["labels"] == {RUN_LABEL: "run-1", OWNER_LABEL: owner_label()}
    assert arguments["environment"]["A"] == "b"


def test_a_container_is_shown_as_it_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine()
    monkeypatch.setattr(Engine, "connect", classmethod(lambda cls: cls(engine)))
    monkeypatch.setattr(target, "wait_until_ready", lambda *urls, **options: 0.0)
    spec = parse_target("docker:env,cpus=2,memory=64m,nofile=99,gpu=0,max_envs=5,env.MODE=fast,env.PORT=7001")
    docker = open_target(spec, root=Path(), run_id="RUN_ID")
    words = docker.describe()[1].text.split()
    with docker:
        (arguments,) = engine.created
    arguments["labels"][OWNER_LABEL] = "PROCESS"
    command = [word.strip("'") for word in words]
    assert [f"{name}={text}".replace("fast", "***") for name, text in arguments["environment"].items()] == [
        word for flag, word in pairwise(command) if flag == "--env"
    ]
    assert {f"{name}={text}" for name, text in arguments["labels"].items()} < set(command)
    assert "127.0.0.1::7001" in command
    assert arguments["ports"] == {"7001/tcp": ("127.0.0.1", None)}
    assert (arguments["nano_cpus"], arguments["mem_limit"], arguments["memswap_limit"]) == (
        2_000_000_000,
        64 * 2**20,
        64 * 2**20,
    )
    assert {"--cpus", "2", "--memory", "--memory-swap", str(64 * 2**20), "nofile=99:99", "device=0"} < set(command)


@pytest.mark.parametrize(
    ("options", "explanation"),
    [
        (
            {"nofile": 10**7},
            "error setting rlimits: error setting rlimit type 7: not permitted",
        ),
        ({"gpu": "0"}, 'could not select device driver "" with capabilities: [[gpu]]'),
        (
            {},
            'OCI runtime create failed: runc: unable to start container process: exec: "x": not found',
        ),
    ],
)
def test_what_the_engine_refuses_is_one_line_and_leaves_nothing(
    golden: Golden, options: dict[str, Any], explanation: str
) -> None:
    engine = FakeEngine()
    engine.start_error = Refused(500, explanation)
    with pytest.raises(TargetError) as caught:
        started(engine, **options)
    golden(caught.value)
    assert "\n" not in str(caught.value)
    assert not engine.there


# --- how it is watched


@pytest.mark.parametrize(
    ("state", "limit"),
    [
        ({"ExitCode": 0}, None),
        ({"ExitCode": 3, "Error": ""}, None),
        (
            {"ExitCode": 137, "OOMKilled": True},
            64 * 2**20,
        ),
        (
            {"ExitCode": 1, "OOMKilled": True},
            64 * 2**20,
        ),
        (
            {"ExitCode": 137, "OOMKilled": True},
            None,
        ),
        ({"ExitCode": 137}, None),
        ({"ExitCode": 255}, None),
        ({"ExitCode": 127, "Error": "no such file"}, None),
    ],
)
def test_an_end_is_told_with_its_code_and_reason(golden: Golden, state: dict[str, Any], limit: int | None) -> None:
    golden(str(read_exit(state, limit)))


def test_a_container_that_runs_has_not_ended() -> None:
    container = started(FakeEngine())
    assert container.exit_status() is None
    assert container.restarts() == 0


def test_a_container_that_was_started_again_lost_its_sessions(golden: Golden) -> None:
    engine = FakeEngine()
    container = started(engine)
    engine.state = {"StartedAt": "2026-01-01T00:05:00.2Z"}
    assert container.restarts() == 1
    golden(str(container.exit_status()))
    engine.restarts = 4
    assert container.restarts() == 4


def test_a_container_somebody_removed_is_told_as_that(golden: Golden) -> None:
    engine = FakeEngine()
    container = started(engine)
    engine.there.clear()
    golden(str(container.exit_status()))
    container.stop()


def test_a_process_killed_for_lack_of_memory_is_told_below_the_log(golden: Golden) -> None:
    engine = FakeEngine()
    container = started(engine, memory=64 * 2**20)
    assert container.log_tail(2) == "two\nthree"
    engine.oom_events = 2
    golden(container.log_tail(2).splitlines())


def test_the_engines_figures_are_read_without_the_cache() -> None:
    sample = read_stats(STATS, 5.0)
    assert sample is not None
    assert (sample.at_s, sample.cpu_seconds, sample.rss_bytes, sample.threads) == (5.0, 2.5, 2_000_000, 7)
    assert read_stats({"memory_stats": {}, "cpu_stats": {}}, 5.0) is None


def test_a_container_of_another_machine_is_sampled_by_its_engine_with_its_restarts() -> None:
    engine = FakeEngine()
    engine.restarts = 2
    sample = started(engine).sample()
    assert sample is not None
    assert (sample.cpu_seconds, sample.restarts, sample.processes) == (2.5, 2, None)


def test_the_log_and_the_end_are_still_known_once_it_is_removed(tmp_path: Path) -> None:
    engine = FakeEngine()
    container = Container(Engine(engine), "env", log_path=tmp_path / "logs" / "env.log")
    with container:
        pass
    assert not engine.there
    assert container.log_tail(1) == "three"
    assert container.sample() is None
    assert (tmp_path / "logs" / "env.log").read_text() == "one\ntwo\nthree\n"
    container.stop()
    assert engine.said == ["stop"]


def test_a_container_that_is_interrupted_while_it_starts_is_removed() -> None:
    engine = FakeEngine()

    def interrupt(**arguments: Any) -> None:
        FakeEngine.create(engine, **arguments)
        raise KeyboardInterrupt

    engine.containers.create = interrupt
    with pytest.raises(KeyboardInterrupt):
        started(engine)
    assert not engine.there


@pytest.fixture
def group(tmp_path: Path) -> Callable[..., Path]:
    """Write the files of a control group."""

    def write(lines: str, files: dict[str, str]) -> Path:
        for name, text in {"proc/7/cgroup": lines, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def test_a_control_group_of_version_2_is_read_from_its_one_folder(group: Callable[..., Path]) -> None:
    folder = "sys/system.slice/docker-abc.scope"
    root = group(
        "0::/system.slice/docker-abc.scope\n",
        {
            f"{folder}/cpu.stat": "usage_usec 1500000\nuser_usec 1\n",
            f"{folder}/memory.current": "5000\n",
            f"{folder}/memory.stat": "anon 1\ninactive_file 2000\n",
            f"{folder}/pids.current": "9\n",
        },
    )
    cgroup = control_group(7, "abc", root=root / "sys", proc=root / "proc")
    assert cgroup is not None
    sample = cgroup.sample(1.0)
    assert sample is not None
    assert (sample.cpu_seconds, sample.rss_bytes, sample.threads) == (1.5, 3000, 9)


def test_a_process_of_another_group_is_not_taken_for_the_container(group: Callable[..., Path]) -> None:
    root = group("0::/user.slice/session-1.scope\n", {"sys/user.slice/session-1.scope/cpu.stat": "usage_usec 1\n"})
    assert control_group(7, "abc", root=root / "sys", proc=root / "proc") is None
    assert control_group(8, "abc", root=root / "sys", proc=root / "proc") is None


# --- what is built


def test_a_folder_is_built_by_its_dockerfile_or_the_one_openenv_init_writes(golden: Golden, tmp_path: Path) -> None:
    (tmp_path / "env" / "server").mkdir(parents=True)
    with pytest.raises(TargetError) as caught:
        find_build("./env", tmp_path)
    golden(caught.value)
    (tmp_path / "env" / "server" / "Dockerfile").touch()
    build = find_build("./env", tmp_path)
    assert (build.folder, build.dockerfile) == ((tmp_path / "env").resolve(), "server/Dockerfile")
    assert build.tag.startswith("openenv-scale/env:")
    (tmp_path / "env" / "Dockerfile").touch()
    assert find_build("./env", tmp_path).dockerfile == "Dockerfile"


def test_a_dockerfile_is_built_from_the_repository_it_is_in(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "Dockerfile.gpu").touch()
    assert find_build("./server/Dockerfile.gpu", tmp_path).dockerfile == "Dockerfile.gpu"
    (tmp_path / "openenv.yaml").touch()
    build = find_build("./server/Dockerfile.gpu", tmp_path)
    assert (build.folder, build.dockerfile) == (tmp_path.resolve(), "server/Dockerfile.gpu")


def test_a_folder_that_is_not_there_is_named_with_where_it_was_looked_for(golden: Golden, tmp_path: Path) -> None:
    with pytest.raises(TargetError) as caught:
        find_build("./nowhere", tmp_path)
    golden(caught.value)


def builds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> tuple[Any, list[str]]:
    """Return an engine whose own builder wants BuildKit, and put a docker command that runs `script` on PATH."""
    engine = Engine(FakeEngine())
    engine.client.api.build = lambda **_: iter(
        [{"stream": "Step 1/2 : FR"}, {"stream": "OM x\n"}, {"error": "the --mount option requires BuildKit."}]
    )
    command = tmp_path / "bin" / "docker"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    return engine, []


def test_a_dockerfile_for_buildkit_is_built_by_the_docker_command(
    golden: Golden, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine, lines = builds(monkeypatch, tmp_path, 'echo "$DOCKER_BUILDKIT $@"')
    build, output = Build(tmp_path, "Dockerfile", "a:b", arguments={"N": "1"}), list[str]()
    assert build_image(engine, build, lines.append, output.append) == "sha256:abc"
    assert lines == [f"docker: building {tmp_path}"]
    assert output[0] == "Step 1/2 : FROM x"
    golden(output[-1])


def test_a_docker_command_without_buildkit_is_told_what_to_install(
    golden: Golden, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine, lines = builds(monkeypatch, tmp_path, "echo the buildx component is missing; exit 1")
    with pytest.raises(TargetError) as caught:
        build_image(engine, Build(tmp_path, "Dockerfile", "a:b"), lines.append)
    first, *rest = str(caught.value).splitlines()
    golden(first)
    golden(rest)


def test_the_wheel_of_this_package_holds_its_code_and_is_the_same_each_time(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    first, second = write_own_wheel(tmp_path), write_own_wheel(tmp_path / "again")
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as wheel:
        names = wheel.namelist()
        record = wheel.read(next(name for name in names if name.endswith("/RECORD"))).decode()
    assert "pytest_openenv_scale/server/app.py" in names
    assert not [name for name in names if "/deploy/" in name]
    assert [line.split(",")[0] for line in record.splitlines()] == names


# --- who cleans up


def test_only_containers_whose_owner_is_gone_are_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine()
    living = started(engine, run_id="living").name
    orphan = started(engine, run_id="dead").name
    ended_process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from pytest_openenv_scale.targets.common.leftovers import owner_label as o; print(o())",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    engine.there[orphan].labels[OWNER_LABEL] = ended_process.communicate()[0].strip()
    monkeypatch.setattr(Engine, "connect", classmethod(lambda cls, options: cls(engine, options)))
    expected = [f"container {orphan} of env (run dead)"]
    assert list(gc.collect(["docker"], dry_run=True).lines) == expected
    assert len(engine.there) == 2
    assert list(gc.collect(["docker"]).lines) == expected
    assert list(engine.there) == [living]
    assert gc.collect(["docker"]) == gc.Collected((), (), {})


def test_what_a_request_makes_is_known_before_an_interrupt_is_raised() -> None:
    code = """
        import os, signal, threading
        from pytest_openenv_scale.targets.common.leftovers import deferring_interrupts
        made = []
        def work():
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(0.2)
            made.append("container")
        try:
            deferring_interrupts(work)
        except KeyboardInterrupt:
            print("interrupted with", made)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "interrupted with ['container']", done.stderr


def test_an_error_of_the_request_is_the_callers() -> None:
    with pytest.raises(ZeroDivisionError):
        deferring_interrupts(lambda: 1 // 0)


def test_sigterm_is_an_orderly_end_only_while_something_runs_that_must_be_removed() -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert before is signal.SIG_DFL
    with graceful_signals:
        with graceful_signals:
            pass
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_unwinds_while_a_container_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine()
    monkeypatch.setattr(Engine, "connect", classmethod(lambda cls: cls(engine)))
    monkeypatch.setattr(target, "wait_until_ready", lambda *urls, **options: 0.0)
    with (
        pytest.raises(KeyboardInterrupt, match="SIGTERM"),
        open_target(parse_target("docker:env"), root=Path()),
    ):
        signal.raise_signal(signal.SIGTERM)
    assert not engine.there
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_without_the_docker_package_the_line_says_what_to_install(
    golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "docker", None)
    with pytest.raises(TargetError) as caught, open_target(parse_target("docker:x"), root=Path()):
        pass
    golden(caught.value)


@pytest.mark.parametrize(
    "host",
    [
        "unix:///nowhere/docker.sock",
        "tcp://127.0.0.1:1",
        "nonsense",
    ],
)
def test_an_engine_that_is_not_there_is_one_line_with_the_remedy(
    golden: Golden, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    with pytest.raises(TargetError) as caught, open_target(parse_target("docker:x"), root=Path()):
        pass
    golden(caught.value, masks={r"127.0.0.1:1": "127.0.0.1, port 1", "Invalid bind address.*: nonsense": "WHY"})
    assert "\n" not in str(caught.value)
