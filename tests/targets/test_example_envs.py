"""The example repositories, used as somebody who cloned one would: `python -m pytest` in its folder."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.compute as pc
import pytest

from openenv_venvs import OPENENV_0_10, openenv_and_project, openenv_python
from pytest_run import PytestRun, environ
from server_process import running_server

pytestmark = pytest.mark.real

EXAMPLES = Path(__file__).resolve().parents[2] / "example_envs"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/openenv.yaml"))
PYTEST_PASSED, PYTEST_TESTS_FAILED = 0, 1

GENERIC_EPISODE = """
import asyncio, json, sys
from openenv.core.generic_client import GenericEnvClient

async def main(url):
    async with GenericEnvClient(base_url=url) as client:
        first = await client.reset()
        second = await client.step({"message": "hello"})
        try:
            await client.step({"massage": "hello"})
        except RuntimeError as error:
            refused = str(error)
        state = await client.state()
        print(json.dumps([first.observation, second.observation, second.reward, refused, state]))

asyncio.run(main(sys.argv[1]))
"""

# The package as others import it: not `server.app` from its folder, but `countdown.server.app`.
COUNTDOWN_EPISODE = """
import json, threading, time
import uvicorn
from countdown import CountdownAction, CountdownEnv
from countdown.server.app import app

server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
threading.Thread(target=server.run, daemon=True).start()
while not server.started:
    time.sleep(0.05)
port = server.servers[0].sockets[0].getsockname()[1]
with CountdownEnv(base_url=f"http://127.0.0.1:{port}").sync() as env:
    results = [env.reset()] + [env.step(CountdownAction(take=take)) for take in (3, 3, 3, 1)]
    played = [(result.observation.remaining, result.done, result.reward) for result in results]
    print(json.dumps([played, env.state().step_count]))
"""


@pytest.fixture(scope="session")
def python_with_openenv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A python that holds the real openenv and the project."""
    return openenv_and_project(OPENENV_0_10, tmp_path_factory.mktemp("openenv-and-project"))


def clone(name: str, folder: Path, called: str | None = None) -> Path:
    """A copy of an example repository, without what somebody's own runs left in it."""
    ignored = shutil.ignore_patterns("__pycache__", ".pytest_cache", ".openenv-results", "*.egg-info", ".venv")
    return Path(shutil.copytree(EXAMPLES / name, folder / (called or name), ignore=ignored))


def run_pytest_in(repository: Path, python: Path, *options: str) -> PytestRun:
    """Run the tests there; in what they said, lines are not broken."""
    done = run(python, "-m", "pytest", *options, cwd=repository)
    return PytestRun(repository, done.returncode, re.sub(r"\s+", " ", done.stdout + done.stderr))


def run(python: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in environ(NO_COLOR="1").items() if name != "FORCE_COLOR"}
    return subprocess.run(
        [str(python), *arguments],
        cwd=cwd,
        env=inherited,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


@contextmanager
def hypercorn(repository: Path, app: str) -> Iterator[str]:
    log = repository / "hypercorn.log"
    with log.open("w") as out:
        command = [sys.executable, "-m", "hypercorn", app, "--bind", "127.0.0.1:0"]
        server = subprocess.Popen(command, cwd=repository, env=environ(), stdout=out, stderr=out)
    try:
        for _ in range(200):
            if match := re.search(r"Running on (http://\S+)", log.read_text()):
                break
            with pytest.raises(subprocess.TimeoutExpired):
                server.wait(0.1)
        else:
            pytest.fail(f"hypercorn did not start: {log.read_text()}")
        yield match[1]
    finally:
        server.terminate()  # Not kill: its worker would be left.
        server.wait(20)


def lines_of_code(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]


@pytest.mark.parametrize("name", NAMES)
def test_a_scaling_test_is_five_lines(name: str) -> None:
    (test,) = (EXAMPLES / name).glob("tests/test_*.py")
    assert len(lines_of_code(test)) <= 5


@pytest.mark.parametrize("name", NAMES)
def test_openenv_validate_accepts_an_examples_manifest(name: str, tmp_path: Path) -> None:
    openenv = openenv_python(OPENENV_0_10)
    repository = clone(name, tmp_path)
    done = run(openenv, "-m", "openenv.cli", "validate", "--level", "static", "--json", cwd=repository)
    report = json.loads(done.stdout)
    assert (report["verdict"], report["manifest"]["name"]) == ("pass", name), report


def test_echo_is_green_on_starlette_alone(tmp_path: Path) -> None:
    tested = run_pytest_in(clone("echo", tmp_path), Path(sys.executable))
    assert tested.code == PYTEST_PASSED, tested.output
    assert "SLO met: max_batch ≥ 32" in tested.output
    assert pc.all(tested.rows()["success"]).as_py()


def test_echo_is_an_openenv_server_to_openenvs_own_client(tmp_path: Path) -> None:
    openenv = openenv_python(OPENENV_0_10)
    with hypercorn(clone("echo", tmp_path), "server.app:app") as url:
        done = run(openenv, "-c", GENERIC_EPISODE, url, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second, reward, refused, state = json.loads(done.stdout)
    assert first["echoed_message"] == "ready"
    assert (second["echoed_message"], reward) == ("hello", 0.5)
    assert "VALIDATION_ERROR" in refused
    assert state["step_count"] == 1


def test_echo_holds_as_many_sessions_as_max_concurrent_envs_says(tmp_path: Path) -> None:
    repository = clone("echo", tmp_path)
    tested = run_pytest_in(repository, Path(sys.executable), "--openenv-target", "local,max_envs=5")
    assert tested.code == PYTEST_TESTS_FAILED, tested.output
    assert "CAPACITY_REACHED at 5 sessions" in tested.output
    assert "max_envs=32 in the target" in tested.output


def test_countdown_plays_an_episode_with_its_own_client(tmp_path: Path, python_with_openenv: Path) -> None:
    clone("countdown", tmp_path)
    done = run(python_with_openenv, "-c", COUNTDOWN_EPISODE, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    played, steps = json.loads(done.stdout)
    assert played == [[10, False, None], [7, False, 0.0], [4, False, 0.0], [1, False, 0.0], [0, True, 1.0]]
    assert steps == 4


def test_countdown_is_green_and_its_sessions_play_on_after_the_episodes_end(
    tmp_path: Path, python_with_openenv: Path
) -> None:
    # A clone is often called something that Python cannot import.
    repository = clone("countdown", tmp_path, called="my-countdown")
    tested = run_pytest_in(repository, python_with_openenv)
    assert tested.code == PYTEST_PASSED, tested.output
    assert "SLO met: max_batch ≥ 32" in tested.output
    rows = tested.rows()
    assert set(rows["steps_done"].to_pylist()) == {12}
    assert all(seconds > 0 for seconds in rows["resets"].to_pylist())


def test_countdown_with_one_session_is_red_and_names_the_line_that_makes_it_green(
    tmp_path: Path, python_with_openenv: Path
) -> None:
    repository = clone("countdown", tmp_path)
    set_max_concurrent_envs(repository, 1)
    red = run_pytest_in(repository, python_with_openenv)
    assert red.code == PYTEST_TESTS_FAILED, red.output
    (curve,) = [curve for sweep in red.sweeps() for curve in sweep["curves"]]
    assert (curve["outcome"], curve["max_batch"]) == ("missed", 1)
    assert [refused["cause"] for refused in red.refusals()] == ["one_session"]
    remedy = re.search(r"max_concurrent_envs=(\d+) in create_app \(server/app\.py:\d+\)", red.output)
    assert remedy, red.output
    set_max_concurrent_envs(repository, int(remedy[1]))
    green = run_pytest_in(repository, python_with_openenv)
    assert green.code == PYTEST_PASSED, green.output


def test_what_openenv_init_writes_is_measured_below_a_parent_with_pytests_configuration(
    tmp_path: Path, python_with_openenv: Path
) -> None:
    """As huggingface/OpenEnv is laid out: side by side, one configuration above; one is called as clones often are."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\nasyncio_mode = 'auto'\n")
    (tmp_path / "envs").mkdir()
    for name, sessions in (("one_env", 1), ("two_env", 2)):
        completed = run(openenv_python(OPENENV_0_10), "-m", "openenv.cli", "init", name, cwd=tmp_path / "envs")
        assert completed.returncode == 0, completed.stderr
        environment = tmp_path / "envs" / name
        set_max_concurrent_envs(environment, sessions)
        (environment / "tests").mkdir()
        (environment / "tests" / f"test_{name}.py").write_text(
            "import pytest\n\n@pytest.mark.scaling(batches='1,2')\n@pytest.mark.slo(max_batch=2)\n"
            "def test_holds(scaling):\n    scaling.run()\n"
        )
    (tmp_path / "envs" / "two_env").rename(tmp_path / "envs" / "two-env")
    tested = run_pytest_in(tmp_path, python_with_openenv, "-m", "scaling")
    assert tested.code == PYTEST_TESTS_FAILED, tested.output
    outcomes = {sweep["test"]: sweep["curves"][0]["max_batch"] for sweep in tested.sweeps()}
    assert outcomes == {
        "envs/one_env/tests/test_one_env.py::test_holds": 1,
        "envs/two-env/tests/test_two_env.py::test_holds": 2,
    }
    assert "served: server.app:app of envs/two-env/openenv.yaml" in tested.output


_BLOCK = re.compile(r"^```(sh|python|diff|toml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"`([\w/]+\.(?:py|toml))`")


def test_the_tutorial_works_as_it_is_written_in_what_openenv_init_makes(
    tmp_path: Path, python_with_openenv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openenv_init = run(openenv_python(OPENENV_0_10), "-m", "openenv.cli", "init", "my_env", cwd=tmp_path)
    assert openenv_init.returncode == 0, openenv_init.stderr
    environment, programs = tmp_path / "my_env", make_programs(tmp_path / "bin", python_with_openenv)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    tutorial = (EXAMPLES.parent / "docs" / "tutorial.md").read_text()
    codes: list[int] = []
    with running_server() as (_, address):
        for block in _BLOCK.finditer(tutorial.replace("https://my-environment.example", f"http://{address}")):
            kind, content = block.groups()
            before = block.string[: block.start()].rstrip().rpartition("\n\n")[2]
            file = environment / name[-1] if (name := _FILE.findall(before)) else None
            if kind == "diff":
                old, new = (line[1:] for line in content.splitlines())
                assert file is not None
                assert file.read_text().count(f"{old}\n") == 1
                file.write_text(file.read_text().replace(old, new))
            elif file is not None:
                file.parent.mkdir(exist_ok=True)
                file.write_text(f"{file.read_text()}\n{content}" if file.exists() else content)
            else:
                shell = ["bash", "-euc", content] if kind == "sh" else [str(programs / "python"), "-c", content]
                done = run(Path(shell[0]), *shell[1:], cwd=environment)
                if content.startswith("pytest "):
                    codes.append(done.returncode)
                else:
                    assert done.returncode == 0, f"{content}{done.stdout}{done.stderr}"
    assert codes == [PYTEST_TESTS_FAILED, PYTEST_PASSED, PYTEST_PASSED, PYTEST_PASSED]


def make_programs(folder: Path, python: Path) -> Path:
    """Programs of an environment in which everything is installed already: `pip` does nothing."""
    folder.mkdir()
    modules = {"python": "", "pytest": "-m pytest", "openenv-scale": "-m pytest_openenv_scale"}
    for name, module in modules.items():
        (folder / name).write_text(f'#!/bin/sh\nexec {python} {module} "$@"\n')
    (folder / "pip").write_text("#!/bin/sh\n")
    for program in folder.iterdir():
        program.chmod(0o755)
    return folder


def set_max_concurrent_envs(repository: Path, sessions: int) -> None:
    app = repository / "server" / "app.py"
    text, changed = re.subn(r"max_concurrent_envs=\d+", f"max_concurrent_envs={sessions}", app.read_text())
    assert changed == 1
    app.write_text(text)
