"""What a Space is made of, and the scripts of deploy/hf_spaces."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_deploy_local import recorded

from components import shellcheck
from goldens import Golden
from pytest_openenv_scale.__main__ import main
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.targets.common.files import deploy_file
from pytest_openenv_scale.targets.spaces.deploy import SpaceSource, space_files

DEPENDENCIES = '[project]\nname = "mine"\ndependencies = ["starlette>=0.40", "numpy"]\n'
RECORDER = f"""#!{sys.executable}
import json, os, sys
names = ("WORKERS", "PYTHONPATH", "PWD")
if sys.argv[1:2] != ["-c"]:
    print(json.dumps([sys.argv[1:], {{name: os.environ.get(name) for name in names}}, os.getcwd()]))
"""


def front(readme: bytes) -> dict[str, object]:
    return yaml.safe_load(readme.decode().removeprefix("---\n").partition("\n---\n")[0])


@pytest.fixture
def env(tmp_path: Path) -> Path:
    """An environment's repository without a Dockerfile."""
    folder = tmp_path / "my_env"
    (folder / "server").mkdir(parents=True)
    (folder / "openenv.yaml").write_text("app: server.app:app\n")
    (folder / "pyproject.toml").write_text(DEPENDENCIES)
    (folder / "server" / "app.py").write_text("app = None\n")
    return folder


def test_the_benchmark_environment_comes_as_a_wheel_of_the_code_that_runs_here() -> None:
    files = space_files(SpaceSource(), "bench")
    (wheel,) = (path for path in files if path.startswith("package/"))
    assert set(files) == {"README.md", "Dockerfile", "requirements.txt", "serve.sh", wheel}
    assert files[wheel] == space_files(SpaceSource(), "bench")[wheel]
    assert (front(files["README.md"])["sdk"], front(files["README.md"])["app_port"]) == ("docker", 8000)
    assert b"USER 1000:1000" in files["Dockerfile"]
    assert b"HOST=0.0.0.0 PORT=8000" in files["Dockerfile"]


def test_an_application_is_served_from_its_folder_with_its_own_requirements(env: Path) -> None:
    (env / "requirements.txt").write_text("torch\n")
    files = space_files(SpaceSource(env), "my-env")
    assert files["app/my_env/server/app.py"] == b"app = None\n"
    assert b"\nARG APP=server.app:app\n" in files["Dockerfile"]
    assert files["requirements.txt"].decode().splitlines()[-3:] == ["starlette>=0.40", "numpy", "torch"]
    assert front(files["README.md"]) == {"title": "my-env", "sdk": "docker", "app_port": 8000, "tags": ["openenv"]}


def test_an_app_that_is_given_outranks_what_the_folder_says(env: Path) -> None:
    (env / "Dockerfile").write_text("FROM x\n")
    files = space_files(SpaceSource(env, "other.place:app"), "my-env")
    assert b"\nARG APP=other.place:app\n" in files["Dockerfile"]


@pytest.mark.parametrize("path", ["Dockerfile", "server/Dockerfile"])
def test_a_folder_with_a_dockerfile_is_built_from_it(env: Path, path: str) -> None:
    (env / path).write_text("FROM x\nEXPOSE 7860\n")
    (env / "README.md").write_text("---\ntitle: Mine\nlicense: mit\nbase_path: /web\n---\n# Words\n")
    files = space_files(SpaceSource(env), "my-env")
    assert files["Dockerfile"] == b"FROM x\nEXPOSE 7860\n"
    assert files["server/app.py"] == b"app = None\n"
    assert files["README.md"].endswith(b"---\n\n# Words\n")
    assert front(files["README.md"]) == {
        "title": "Mine",
        "license": "mit",
        "base_path": "/web",
        "sdk": "docker",
        "app_port": 7860,
        "tags": ["openenv"],
    }


def test_secrets_results_and_caches_stay_here(env: Path) -> None:
    for path in (".env", ".git/config", "__pycache__/a.pyc", "openenv-results/x/manifest.json", "v/pyvenv.cfg", "v/x"):
        (env / path).parent.mkdir(parents=True, exist_ok=True)
        (env / path).write_text("secret")
    (env / ".dockerignore").write_text("tests\n")
    inside = {path for path in space_files(SpaceSource(env), "my-env") if path.startswith("app/")}
    assert {path.removeprefix("app/my_env/") for path in inside} == {
        *(".dockerignore", "openenv.yaml", "pyproject.toml", "server/app.py"),
    }


def test_a_folder_that_cannot_be_served_is_told_with_what_to_add(golden: Golden, tmp_path: Path, env: Path) -> None:
    with pytest.raises(TargetError) as caught:
        space_files(SpaceSource(tmp_path / "nowhere"), "x")
    golden(caught.value)
    with pytest.raises(TargetError) as caught:
        space_files(SpaceSource(env, "nonsense"), "x")
    golden(caught.value)
    (env / "openenv.yaml").unlink()
    with pytest.raises(TargetError) as caught:
        space_files(SpaceSource(env), "x")
    golden(caught.value)


def test_a_source_is_looked_for_from_here_and_from_the_root(env: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(env.parent)
    assert SpaceSource.parse(app=None, folder=None, root=env) == SpaceSource()
    assert SpaceSource.parse(app="a:b", folder=None, root=env) == SpaceSource(env, "a:b")
    assert SpaceSource.parse(app=None, folder="my_env", root=env) == SpaceSource(Path("my_env"))
    assert SpaceSource.parse(app=None, folder="server", root=env) == SpaceSource(env / "server")


def test_a_dry_run_of_deploy_lists_files_and_settings(env: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["deploy", "spaces", "alice/my-env", "--folder", str(env), "--workers", "2", "--max-envs", "64"]
    assert main([*arguments, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"would deploy {env} to alice/my-env:\n")
    assert "  app/my_env/server/app.py\n" in out
    assert "  WORKERS=2\n  MAX_CONCURRENT_ENVS=64\n" in out
    assert "sdk: docker" in out
    assert main(["deploy", "spaces", "alice/my-env", "--workers", "0"]) == 2
    assert "--workers" in capsys.readouterr().err


# --- scripts


def test_shellcheck_finds_nothing() -> None:
    paths = [str(deploy_file(f"hf_spaces/{name}")) for name in ("deploy.sh", "serve.sh")]
    assert shellcheck(*paths) == ""


def served(folder: Path, **settings: str) -> tuple[list[str], dict[str, str | None], str]:
    """Return what the container of a Space would run, and where."""
    (folder / "bin").mkdir()
    recorder = folder / "bin" / "python"
    recorder.write_text(RECORDER)
    recorder.chmod(0o755)
    (folder / "app").mkdir(exist_ok=True)
    script = shutil.copy(deploy_file("hf_spaces/serve.sh"), folder / "app")
    environ = {"PATH": f"{recorder.parent}:{os.environ['PATH']}", **settings}
    done = subprocess.run(["sh", script], env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    arguments, environ, where = json.loads(done.stdout)
    return arguments, environ, where


def test_a_space_serves_the_benchmark_environment_with_a_worker_per_processor(tmp_path: Path) -> None:
    arguments, environ, _ = served(tmp_path)
    assert arguments == ["-m", "pytest_openenv_scale.server"]
    assert int(environ["WORKERS"] or 0) >= 1


def test_a_space_serves_an_application_as_the_script_of_deploy_local_does(tmp_path: Path) -> None:
    (tmp_path / "app" / "my_env").mkdir(parents=True)
    settings = {"APP": "server.app:app", "HOST": "127.0.0.1", "PORT": "8000", "WORKERS": "3"}
    arguments, environ, where = served(tmp_path, **settings)
    assert where == str(tmp_path / "app" / "my_env")
    assert environ["PYTHONPATH"] == f"{where}:{tmp_path / 'app'}"
    ours, _ = recorded("run_hypercorn.sh", tmp_path, **settings)
    assert arguments == ours


def deploy_script(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(deploy_file("hf_spaces/deploy.sh")), *arguments]
    environ = {"PATH": os.environ["PATH"], **settings}
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)


def test_the_script_creates_sets_and_uploads_with_the_hf_command(golden: Golden) -> None:
    settings = {"SPACE": "alice/env", "PRIVATE": "1", "WORKERS": "2", "HARDWARE": "cpu-upgrade"}
    done = deploy_script("--dry-run", **settings)
    assert (done.returncode, done.stderr) == (0, "")
    create, variables, hardware, upload = done.stdout.splitlines()
    golden(create.strip())
    golden(variables.strip())
    golden(hardware.strip())
    assert upload.startswith(f"hf upload alice/env {deploy_file('hf_spaces')} . --type space ")
    assert len(deploy_script("--dry-run", SPACE="alice/env").stdout.splitlines()) == 2


def test_the_script_says_what_it_needs(golden: Golden, tmp_path: Path) -> None:
    assert deploy_script("--help").stdout.startswith("usage: SPACE=USER/NAME deploy.sh ")
    for settings, says in (
        ({}, "SPACE is the Space to deploy to, USER/NAME; see --help"),
        ({"SPACE": "a/b", "FOLDER": str(tmp_path)}, f"there is no Dockerfile in {tmp_path}"),
    ):
        done = deploy_script(**settings)
        assert done.returncode == 2
        assert done.stderr.startswith(f"deploy.sh: {says}")
    (tmp_path / "Dockerfile").write_text("FROM x\n")
    assert "that says sdk: docker" in deploy_script(SPACE="a/b", FOLDER=str(tmp_path)).stderr
    golden(deploy_script("--priate").stderr)
