"""Spaces made with the real huggingface_hub against a stand-in of the Hub, and built from the very files it got."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from components import lacking
from docker_engine import BASE_IMAGE, EngineUnavailableError, docker, engine_or_skip, server_wheels
from goldens import Golden
from hub import Hub, running_hub
from pytest_openenv_scale.__main__ import main
from pytest_openenv_scale.core.target_spec import parse_target
from pytest_openenv_scale.targets import open_target
from pytest_openenv_scale.targets.common.files import deploy_file

pytestmark = [
    pytest.mark.stand_in,
    # huggingface_hub's own way to upload a file.
    pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning"),
]
pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

SPACE = "alice/env"
ECHO = Path(__file__).parents[2] / "example_envs" / "echo"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as running:
        running.patch(monkeypatch, tmp_path)
        yield running


def deploy(*arguments: object) -> int:
    return main(["deploy", "spaces", SPACE, *map(str, arguments)])


def files(hub: Hub) -> dict[str, bytes]:
    return hub.repos["space", SPACE].files


def changes(hub: Hub) -> list[str]:
    """What was asked of the Space that changes it, in order."""
    return [
        one.path.rpartition("/")[2] for one in hub.asked() if one.method in ("POST", "DELETE") and SPACE in one.path
    ]


def test_deploying_the_same_again_changes_nothing_and_says_so(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert deploy() == 0
    head = hub.repos["space", SPACE].head
    capsys.readouterr()
    assert deploy() == 0
    assert capsys.readouterr().out.startswith("unchanged: ")
    assert hub.repos["space", SPACE].head == head


def test_a_space_is_created_with_what_it_is_told_and_its_files_come_last(
    hub: Hub, capsys: pytest.CaptureFixture[str], golden: Golden
) -> None:
    assert deploy("--private", "--workers", 2, "--max-envs", 64, "--hardware", "cpu-upgrade") == 0
    (request,) = hub.asked("POST", "/api/repos/create")
    assert request.json() == {
        "name": "env",
        "organization": "alice",
        "type": "space",
        "sdk": "docker",
        "visibility": "private",
        "hardware": "cpu-upgrade",
        "variables": [{"key": "WORKERS", "value": "2"}, {"key": "MAX_CONCURRENT_ENVS", "value": "64"}],
    }
    (wheel,) = (path for path in files(hub) if path.endswith(".whl"))
    assert set(files(hub)) == {"README.md", "Dockerfile", "requirements.txt", "serve.sh", wheel}
    golden(capsys.readouterr().out, masks={hub.url: "HUB", "5 files, .*": "5 files, SIZE"})


def test_an_update_sets_what_differs_and_leaves_no_older_wheel(hub: Hub) -> None:
    assert deploy("--workers", 2) == 0
    files(hub)["package/pytest_openenv_scale-0.0.1-py3-none-any.whl"] = b"older"
    files(hub)["notes.md"] = b"mine"
    hub.requests.clear()
    assert deploy("--workers", 2, "--max-envs", 9, "--hardware", "cpu-upgrade") == 0
    assert [path for path in files(hub) if path.startswith("package/")] == [
        path for path in files(hub) if path.endswith(".whl") and "-0.0.1-" not in path
    ]
    assert files(hub)["notes.md"] == b"mine"
    assert [name for name in changes(hub) if name in ("variables", "hardware")] == ["variables", "hardware"]
    assert hub.asked("POST", "/variables")[0].json()["key"] == "MAX_CONCURRENT_ENVS"


def test_a_public_space_is_no_place_for_something_private(
    hub: Hub, capsys: pytest.CaptureFixture[str], golden: Golden
) -> None:
    assert deploy() == 0
    before = dict(files(hub))
    assert deploy("--private", "--folder", ECHO) == 2
    golden(capsys.readouterr().err)
    assert files(hub) == before


def test_a_space_of_another_kind_is_left_alone(hub: Hub, capsys: pytest.CaptureFixture[str], golden: Golden) -> None:
    hub.add_space(SPACE, files={"app.py": b"gradio"}).sdk = "gradio"
    assert deploy() == 2
    golden(capsys.readouterr().err)
    assert files(hub) == {"app.py": b"gradio"}


def test_the_script_deploys_with_the_hf_command_alone(hub: Hub, tmp_path: Path) -> None:
    hf = Path(sys.executable).with_name("hf")
    if not hf.exists():
        pytest.skip("huggingface_hub has no hf command here")
    folder = tmp_path / "space"
    shutil.copytree(deploy_file("hf_spaces"), folder)
    (folder / ".env").write_text("SECRET=1")
    settings = {"SPACE": SPACE, "FOLDER": str(folder), "HF": str(hf), "PRIVATE": "1", "WORKERS": "3"}
    done = subprocess.run(
        ["bash", str(deploy_file("hf_spaces/deploy.sh"))],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **hub.environ(tmp_path), **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(files(hub)) == {path.name for path in deploy_file("hf_spaces").iterdir()}
    assert files(hub)["Dockerfile"] == deploy_file("hf_spaces/Dockerfile").read_bytes()
    assert hub.repos["space", SPACE].private
    assert hub.asked("POST", "/variables")[0].json()["value"] == "3"


APP = """
from pytest_openenv_scale.server.app import create_app
from my_env.settings import LIMIT

application = create_app(LIMIT)
"""


def test_an_app_of_the_current_folder_is_served_as_its_container_would(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without Docker: the files that were uploaded, laid out as the Dockerfile does, and its command."""
    source = tmp_path / "my_env"
    (source / "server").mkdir(parents=True)
    (source / "server" / "main.py").write_text(APP)
    (source / "settings.py").write_text("LIMIT = 2\n")
    monkeypatch.chdir(source)
    assert deploy("--app", "server.main:application") == 0
    space = tmp_path / "srv"
    for path, content in files(hub).items():
        if path == "serve.sh" or path.startswith("app/"):
            destination = space / path.removeprefix("app/")
            destination.parent.mkdir(parents=True, exist_ok=True)
            destination.write_bytes(content)
    (app,) = re.findall(r"^ARG APP=(\S+)$", files(hub)["Dockerfile"].decode(), re.MULTILINE)[:1]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    settings = {"APP": app, "HOST": "127.0.0.1", "PORT": str(port), "PATH": path, "HOME": str(tmp_path)}
    server = subprocess.Popen(["sh", str(space / "serve.sh")], env=settings, cwd=tmp_path)
    try:
        with open_target(parse_target(f"http://127.0.0.1:{port}"), root=tmp_path, modes=("ws",)) as endpoint:
            assert endpoint.urls == (f"http://127.0.0.1:{port}",)
        assert server.poll() is None
    finally:
        server.terminate()
        server.wait(30)


# --- built


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    with engine_or_skip() as host, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", host)
        yield host


@pytest.mark.parametrize("source", [(), ("--folder", ECHO)], ids=["benchmark", "application"])
def test_what_is_uploaded_builds_and_serves_sessions_as_user_1000(
    hub: Hub, engine: str, tmp_path: Path, source: tuple[object, ...]
) -> None:
    assert deploy(*source) == 0
    space = tmp_path / "built_space"
    for path, content in files(hub).items():
        (space / path).parent.mkdir(parents=True, exist_ok=True)
        (space / path).write_bytes(content)
    try:
        # Instead of the package index, which a build here may not reach.
        shutil.copytree(server_wheels(), space / "wheels")
    except EngineUnavailableError as error:
        lacking(str(error))
    target = parse_target(f"docker:{space},build.BASE_IMAGE={BASE_IMAGE},workers=1,max_envs=3")
    with open_target(target, root=tmp_path) as endpoint:
        assert endpoint.exit_status() is None
        (container,) = docker("ps", "--quiet", "--filter", "label=openenv-scale.run").split()[:1] or ["none"]
        assert json.loads(docker("inspect", "--format", "{{json .Config.User}}", container)) == "1000:1000"
        assert "serve.sh" in docker("inspect", "--format", "{{json .Config.Cmd}}", container)
