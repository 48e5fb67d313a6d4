"""`local` runs an application in real servers, and says in one line why one cannot be run."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import psutil
import pytest

from docker_engine import started_processes
from goldens import Golden
from pytest_openenv_scale.client.session import open_session
from pytest_openenv_scale.core.endpoint import Endpoint, ExitStatus
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.target_spec import parse_target
from pytest_openenv_scale.targets import TargetContext, open_in_context, open_target

SERVERS = ("hypercorn", "uvicorn")

APPS = """
import asyncio, os
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route, WebSocketRoute

def observed(**fields):
    return {"observation": fields, "reward": None, "done": False}

def websocket(path, talk):
    async def endpoint(socket):
        await socket.accept()
        await talk(socket)
    return Starlette(routes=[WebSocketRoute(path, endpoint)])

async def play(socket):
    while (await socket.receive_json())["type"] != "close":
        await socket.send_json({"type": "observation", "data": observed(env=dict(os.environ))})
    await socket.close()

async def chat(socket):
    await socket.receive_text()
    await socket.send_text("hello yourself")
    await socket.close()

async def say_nothing(socket):
    await asyncio.sleep(60)

async def die(socket):
    os._exit(7)

async def hello(request):
    return PlainTextResponse("hello")

async def reset(request):
    return JSONResponse(observed())

app, chatty, silent, mortal = (websocket("/ws", talk) for talk in (play, chat, say_nothing, die))
website = Starlette(routes=[Route("/", hello)])
http_only = Starlette(routes=[Route("/reset", reset, methods=["POST"])])

def create_app():
    return websocket("/ws", play)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "envs" / "my_env"
    folder.mkdir(parents=True)
    (folder / "apps.py").write_text(APPS)
    return folder


def eventually(holds: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def serve(text: str, root: Path, **options: Any) -> Any:
    return open_target(parse_target(text), root=root, **options)


def refusal(text: str, root: Path, **options: Any) -> tuple[str, str]:
    """Return the first line of the error, and the rest of it."""
    with pytest.raises(TargetError) as caught, serve(text, root, **options):
        pytest.fail("the target started")
    assert not started_processes()
    first, _, rest = str(caught.value).partition("\n")
    assert "launch.py" not in rest
    assert "serving.py" not in rest
    return first, rest


def play(endpoint: Endpoint) -> dict[str, Any]:
    """Play one session and return the observation of its reset."""

    async def session() -> dict[str, Any]:
        async with open_session(endpoint.urls[0], timeout_s=10) as played:
            return (await played.reset()).observation

    return asyncio.run(session())


@pytest.mark.real
@pytest.mark.parametrize("server", SERVERS)
def test_the_built_in_environment_is_served_on_all_cores_where_it_is_named(tmp_path: Path, server: str) -> None:
    with serve(f"local:builtin,server={server}", tmp_path) as endpoint:
        assert play(endpoint)["pid"] in {child.pid for child in started_processes()}
        sample = endpoint.sample()
        assert endpoint.exit_status() is None
    cores = len(os.sched_getaffinity(0))
    assert endpoint.label == f"local-{server}"
    assert endpoint.limits == {"server": server, "workers": cores}
    assert (endpoint.cores, endpoint.hosts) == (cores, 1)
    assert endpoint.backlog == int(Path("/proc/sys/net/core/somaxconn").read_text())
    assert endpoint.notes == ()
    assert 0 < endpoint.startup_s < 60
    assert sample is not None
    assert (sample.processes or 0) >= cores
    assert not started_processes()
    assert endpoint.log_tail()
    assert endpoint.sample() is None


@pytest.mark.real
@pytest.mark.parametrize("app", ["server.app:app", "my_env.server.app:app", "server.app:create_app"])
def test_openenv_yaml_names_the_app_with_the_root_and_its_parent_importable(root: Path, app: str) -> None:
    (root / "openenv.yaml").write_text(f"name: my_env\napp: {app}\nport: 8000\n")
    (root / "__init__.py").touch()
    (root / "server").mkdir()
    (root / "server" / "__init__.py").touch()
    (root / "server" / "app.py").write_text("from apps import app, create_app\nimport my_env.server\n")
    with serve("local", root) as endpoint:
        assert play(endpoint)["env"]["PYTHONPATH"].split(os.pathsep)[:2] == [
            str(root),
            str(root.parent),
        ]
    assert endpoint.notes == ()
    assert endpoint.limits == {"server": "hypercorn", "workers": 1}


@pytest.mark.real
@pytest.mark.parametrize("server", SERVERS)
def test_an_app_is_served_with_the_variables_and_limits_given(root: Path, server: str) -> None:
    spec = f"local:apps:app,server={server},env.MODE=fast,max_envs=5,nofile=64,label=mine,cores=8,hardware=big"
    with serve(spec, root) as endpoint:
        environ = play(endpoint)["env"]
        sample = endpoint.sample()
    assert (environ["MODE"], environ["MAX_CONCURRENT_ENVS"]) == ("fast", "5")
    assert (endpoint.label, endpoint.cores, endpoint.hardware) == ("mine", 8, "big")
    assert endpoint.limits == {"server": server, "workers": 1, "max_envs": 5, "nofile": 64}
    assert sample is not None
    assert sample.descriptor_limit == 64


@pytest.mark.real
def test_max_concurrent_envs_is_inherited_and_otherwise_left_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAX_CONCURRENT_ENVS", raising=False)
    with serve("local:apps:app", root) as endpoint:
        assert "MAX_CONCURRENT_ENVS" not in play(endpoint)["env"]
    monkeypatch.setenv("MAX_CONCURRENT_ENVS", "7")
    with serve("local:apps:app", root) as endpoint:
        assert play(endpoint)["env"]["MAX_CONCURRENT_ENVS"] == "7"
    assert endpoint.limits["max_envs"] == 7


@pytest.mark.real
@pytest.mark.parametrize("spec", ["local:apps:ap", "local:apps:ap,workers=2", "local:apps:ap,server=uvicorn,workers=2"])
def test_an_app_that_does_not_import_is_named_in_the_first_line(root: Path, spec: str) -> None:
    first, rest = refusal(spec, root)
    assert f"{root}/apps.py" in first
    assert "did you mean 'app'?" in first
    assert rest.startswith("the server's log ends:")
    assert "Traceback" not in rest


@pytest.mark.real
def test_an_app_whose_module_fails_shows_its_own_traceback(root: Path) -> None:
    (root / "broken.py").write_text("import apps\nraise RuntimeError('no model')\n")
    first, rest = refusal("local:broken:app", root)
    assert "RuntimeError: no model" in first
    assert f'File "{root}/broken.py", line 2' in rest
    assert len(rest.splitlines()) <= 21


@pytest.mark.real
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    ("app", "says"),
    [
        ("website", "answered 403"),
        ("chatty", "not JSON: 'hello yourself'"),
        ("http_only", "--openenv-modes http"),
        ("mortal", "exited with code 7"),
    ],
)
def test_an_app_that_is_not_openenv_is_told_by_what_it_answers(root: Path, server: str, app: str, says: str) -> None:
    first, rest = refusal(f"local:apps:{app},server={server}", root)
    assert says in first
    assert rest.startswith("the server's log ends:")


@pytest.mark.real
def test_an_app_that_never_answers_is_given_up_at_the_deadline(root: Path, golden: Golden) -> None:
    first, _ = refusal("local:apps:silent,start_timeout=2s", root)
    golden(first, masks={r"within \S+ s": "within N s", r"log ends: .*, 2 s": "log ends: LINE, 2 s"})


@pytest.mark.real
def test_a_module_that_takes_its_time_is_waited_for_and_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_openenv_scale.targets.common.readiness.START_S", 0.01)
    (root / "slow.py").write_text("import time\ntime.sleep(2)\nfrom apps import app\n")
    lines: list[str] = []
    context = TargetContext(root, timeout_s=60.0, show_status=lines.append)
    with open_in_context(parse_target("local:slow:app"), context):
        pass
    assert lines
    assert all(line.startswith("process alive, log ") for line in lines)
    assert lines[0].endswith(" s of 60 s")


@pytest.mark.real
def test_an_http_only_app_is_accepted_where_only_http_will_be_spoken(root: Path) -> None:
    with serve("local:apps:http_only", root, modes=("http",)) as endpoint:
        assert endpoint.exit_status() is None


def test_a_port_in_use_is_named_with_the_process_that_has_it(tmp_path: Path, golden: Golden) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        first, rest = refusal(f"local:builtin,port={port}", tmp_path)
    golden(first, masks={rf"\b{port}\b": "PORT", rf"\b{os.getpid()}\b": "PID"})
    assert rest == ""


def test_an_address_of_another_machine_cannot_be_listened_on(tmp_path: Path, golden: Golden) -> None:
    first, _ = refusal("local:builtin,host=127.0.0.1.example", tmp_path)
    golden(first, masks={"example: .*": "example: REASON"})


@pytest.mark.real
def test_a_given_port_and_host_are_served_on(root: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.2", 0))
        port = free.getsockname()[1]
    with serve(f"local:apps:app,host=127.0.0.2,port={port}", root) as endpoint:
        assert endpoint.urls == (f"http://127.0.0.2:{port}",)
        play(endpoint)


def test_an_openenv_yaml_without_an_app_is_told_before_anything_starts(root: Path, golden: Golden) -> None:
    (root / "openenv.yaml").write_text("name: my_env\n")
    first, _ = refusal("local", root)
    golden(first)


def test_uvicorn_that_is_not_installed_is_told_with_what_to_install(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_openenv_scale.core.system.find_spec", lambda name: None)
    first, _ = refusal("local:apps:app,server=uvicorn", root)
    assert "pip install 'pytest-openenv-scale[uvicorn]'" in first


@pytest.mark.real
@pytest.mark.parametrize("server", SERVERS)
def test_a_server_killed_while_it_is_used_says_so(root: Path, server: str) -> None:
    with serve(f"local:apps:app,server={server}", root) as endpoint:
        started_processes(recursive=False)[0].kill()
        assert eventually(lambda: endpoint.exit_status() is not None)
        assert endpoint.exit_status() == ExitStatus.from_returncode(-9)


@pytest.mark.real
def test_a_worker_of_hypercorn_that_is_killed_takes_the_server_with_it_and_the_log_says_why(root: Path) -> None:
    with serve("local:apps:app,workers=2", root) as endpoint:
        leader = started_processes(recursive=False)[0]
        worker = max(leader.children(), key=lambda child: child.memory_info().rss)
        worker.kill()
        assert eventually(lambda: endpoint.exit_status() is not None)
        assert endpoint.exit_status() == ExitStatus.from_returncode(137)
        assert f"openenv-scale: worker {worker.pid} was killed by SIGKILL" in endpoint.log_tail()


@pytest.fixture
def owner(root: Path) -> Generator[Callable[[str], tuple[subprocess.Popen[str], list[int]]]]:
    """Start another Python that holds a target; returns it and the pids of the server's processes."""
    started: list[subprocess.Popen[str]] = []

    def start(spec: str) -> tuple[subprocess.Popen[str], list[int]]:
        code = f"""
        import time
        from pathlib import Path
        from pytest_openenv_scale.core.target_spec import parse_target
        from pytest_openenv_scale.targets import open_target
        with open_target(parse_target({spec!r}), root=Path({str(root)!r})):
            print("up", flush=True)
            time.sleep(60)
        """
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process, [child.pid for child in psutil.Process(process.pid).children(recursive=True)]

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.real
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("spec", ["local:apps:app,workers=2", "local:apps:app,workers=2,server=uvicorn"])
def test_no_process_of_the_server_outlives_the_one_that_started_it(
    owner: Callable[[str], tuple[subprocess.Popen[str], list[int]]], spec: str, number: signal.Signals
) -> None:
    process, pids = owner(spec)
    assert len(pids) >= 3
    process.send_signal(number)
    process.wait()
    assert eventually(lambda: not any(map(runs, pids)))
