"""The runtime providers of the real openenv package, in an environment where openenv and the project's wheel are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import psutil
import pytest

from docker_engine import BASE_IMAGE, docker, engine_or_skip, server_wheels
from environments import download_wheels, install, make_environment
from installed_wheel import build_wheel, run
from openenv_venvs import OPENENV_0_10, openenv_python
from pytest_openenv_scale.targets.docker.engine import Engine
from pytest_openenv_scale.targets.docker.image import ImageSource, obtain_image
from pytest_run import PytestRun

pytestmark = pytest.mark.real

RUNTIME = "provider:openenv.core.containers.runtime"

PROJECT = """
[project]
name = "tiny-env"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["uvicorn>=0.35", "websockets>=15", "starlette>=0.40"]
"""

APP = """
import asyncio, os
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute

async def health(request):
    return JSONResponse({"status": "healthy"})

async def play(socket):
    await socket.accept()
    while (message := await socket.receive_json())["type"] != "close":
        await asyncio.sleep(message.get("data", {}).get("wait_seconds", 0))
        seen = {"pid": os.getpid(), "host_url": os.environ["WHERE"]}
        await socket.send_json({"type": "observation", "data": {"observation": seen, "reward": None, "done": False}})
    await socket.close()

app = Starlette(routes=[Route("/health", health), WebSocketRoute("/ws", play)])
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs of an environment on top of the one that holds openenv: the wheel, what it asks for, and uv."""
    openenv = openenv_python(OPENENV_0_10)
    folder = tmp_path_factory.mktemp("with-openenv")
    completed = subprocess.run(
        [str(openenv), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        capture_output=True,
        text=True,
        check=True,
    )
    environment = make_environment(folder / "venv")
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (packages / "openenv.pth").write_text(completed.stdout)
    install(environment, build_wheel(folder), "uv")
    return environment


def measure(programs: Path, folder: Path, target: str, **env: str) -> PytestRun:
    grid = ["--openenv-batches", "1,8", "--openenv-waits", "0.1", "--openenv-slo", "max_batch>=8"]
    grid += ["--openenv-inconclusive", "warn"]
    suite = ["-p", "no:cacheprovider", "--rootdir", str(folder), "-m", "scaling"]
    suite += ["--pyargs", "pytest_openenv_scale.suite"]
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    done = run([str(programs / "pytest"), *suite, "--openenv-target", target, *grid], folder, 300, PATH=path, **env)
    return PytestRun(folder, done.returncode, done.stdout + done.stderr)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A uv project, and in `wheels` all that it depends on."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "server").mkdir()
    (folder / "server" / "__init__.py").touch()
    (folder / "server" / "app.py").write_text(APP)
    download_wheels(folder / "wheels", "uvicorn>=0.35", "websockets>=15", "starlette>=0.40")
    return folder


def serving(folder: Path) -> list[psutil.Process]:
    """The processes that serve the project of this folder."""
    processes = psutil.process_iter(["cmdline"])
    return [process for process in processes if str(folder) in " ".join(process.info["cmdline"] or [])]


def test_uv_provider_serves_a_project(programs: Path, project: Path, tmp_path: Path) -> None:
    os.symlink(project, tmp_path / "env")
    # What uv resolves comes from pip's wheels: uv is configured in other places than pip is.
    offline = {"UV_OFFLINE": "1", "UV_FIND_LINKS": str(project / "wheels"), "UV_CACHE_DIR": str(tmp_path / "cache")}
    offline |= {"UV_PYTHON": sys.executable, "UV_PYTHON_DOWNLOADS": "never"}
    target = f"{RUNTIME}:UVProvider,project_path={tmp_path / 'env'},env.WHERE=here,replicas=2"
    run = measure(programs, project, target, **offline)
    assert run.code == 0, run.output
    assert "UVProvider · ws · wait 0.1 s" in run.output
    rows = run.rows()
    assert rows.num_rows == 1 + 8
    assert rows["success"].to_pylist() == [True] * 9
    assert len(set(rows["pid"].to_pylist())) == 2
    assert set(rows["host_url"].to_pylist()) == {"here"}
    assert serving(tmp_path) == []


def test_a_wrong_argument_and_a_project_that_is_none_are_one_line_each(programs: Path, tmp_path: Path) -> None:
    run = measure(programs, tmp_path, f"{RUNTIME}:UVProvider,project=.")
    assert run.code == 1
    assert "did you mean 'project_path'?" in run.output
    run = measure(programs, tmp_path, f"{RUNTIME}:UVProvider,project_path={tmp_path},timeout_s=3")
    assert run.code == 1
    assert "UVProvider.wait_for_ready failed: " in run.output
    assert "the server's log ends:" in run.output
    assert "Traceback" not in run.output.partition("the server's log ends:")[0]
    assert serving(tmp_path) == []


@pytest.fixture(scope="module")
def host() -> Generator[str]:
    with engine_or_skip() as host:
        yield host


@pytest.fixture(scope="module")
def image(host: str) -> str:
    """The packaged Dockerfile's image on that engine."""
    source = ImageSource(None, Path(), arguments={"BASE_IMAGE": BASE_IMAGE}, wheels=str(server_wheels()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", host)
        engine = Engine.connect()
        try:
            return obtain_image(engine, source, print)
        finally:
            engine.close()


def test_local_docker_provider_runs_an_image(programs: Path, host: str, image: str, tmp_path: Path) -> None:
    target = f"{RUNTIME}:LocalDockerProvider,image={image},workers=1,max_envs=50,replicas=2"
    run = measure(programs, tmp_path, target, DOCKER_HOST=host)
    assert run.code == 0, run.output
    rows = run.rows()
    assert rows["success"].to_pylist() == [True] * 9
    assert len(set(rows["host_url"].to_pylist())) == 2
    assert docker("ps", "--all", "--quiet", "--filter", f"ancestor={image}", host=host) == ""


def test_an_image_that_does_not_exist_is_one_line(programs: Path, host: str, tmp_path: Path) -> None:
    run = measure(programs, tmp_path, f"{RUNTIME}:LocalDockerProvider,image=no-such-image-anywhere", DOCKER_HOST=host)
    assert run.code == 1
    assert "LocalDockerProvider.start_container failed: RuntimeError: " in run.output
    assert "no-such-image-anywhere" in run.output.partition("the server's log ends:")[2]


def test_an_abstract_provider_says_so(programs: Path, tmp_path: Path) -> None:
    run = measure(programs, tmp_path, f"{RUNTIME}:KubernetesProvider,image=x")
    assert run.code == 1
    assert "KubernetesProvider failed: TypeError: " in run.output
