"""What is advised where sessions are refused, done to the letter on a real server: the refusal is gone."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from openenv_venvs import OPENENV_0_10, PACKAGES, newest_and_oldest, openenv_and_project, openenv_python
from pytest_openenv_scale.targets.common.supervisor import ServerProcess
from pytest_openenv_scale.targets.local.serving import count_ready_workers
from pytest_run import PytestRun, run_pytest, write_test
from uvicorn_servers import uvicorn_server

pytestmark = pytest.mark.real

ENVIRONMENT = """
import os
from openenv.core.env_server import Action, ConcurrencyConfig, Environment, Observation, State, create_app


class Env(Environment):
    FLAG

    def reset(self, seed=None, episode_id=None, **kwargs):
        return Observation()

    def step(self, action, timeout_s=None, **kwargs):
        return Observation(reward=1.0)

    @property
    def state(self):
        return State(episode_id="e", step_count=0)


"""
MARK = "SUPPORTS_CONCURRENT_SESSIONS = True"
UNMARKED = ENVIRONMENT.replace("FLAG", '"""Holds one session."""')
MARKED = ENVIRONMENT.replace("FLAG", MARK)
VARIABLE = "int(os.environ.get('MAX_CONCURRENT_ENVS', '{}'))"

DEFAULT = UNMARKED + "app = create_app(Env, Action, Observation)\n"
NUMBER = MARKED + "app = create_app(Env, Action, Observation, max_concurrent_envs=2)\n"
READ = MARKED + f"LIMIT = {VARIABLE.format(2)}\napp = create_app(Env, Action, Observation, 'env', LIMIT)\n"
READ_UNMARKED = READ.replace(MARK, '"""Holds one session."""').replace("'2'", "'1'")
CONFIGURED = (
    MARKED + "CONFIG = ConcurrencyConfig(max_concurrent_envs=2, session_timeout=None)\n"
    "app = create_app(Env, Action, Observation, concurrency_config=CONFIG)\n"
)
HIDDEN = (
    UNMARKED.replace("class Env(Environment)", "Base = globals()['Environment']\n\n\nclass Env(Base)")
    + f"OPTIONS = {{'max_concurrent_envs': {VARIABLE.format(1)}}}\n"
    "app = create_app(Env, Action, Observation, **OPTIONS)\n"
)
"""Neither whether the class has the flag nor what the limit is can be read here."""


@dataclass
class Served:
    """An application as its owner has it: a file, variables, and what it is started with."""

    folder: Path
    python: Path
    server: str = "uvicorn"
    workers: int = 1
    variables: dict[str, str] = field(default_factory=dict[str, str])
    log_path: Path | None = None
    inserted: list[int] = field(default_factory=list[int])
    """Where lines were added: those below are further down than advice has them."""

    @property
    def file(self) -> Path:
        return self.folder / "app.py"

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve it; yields the URL."""
        bind = ["--bind", "127.0.0.1:0"] if self.server == "hypercorn" else ["--host", "127.0.0.1", "--port", "0"]
        command = [str(self.python), "-m", self.server, "app:app", *bind, "--workers", str(self.workers)]
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("MAX_CONC", "PYTHONPATH"))
        }
        process = ServerProcess(
            command,
            env={**inherited, "PYTHONUNBUFFERED": "1", **self.variables},
            cwd=self.folder,
            log_path=self.log_path,
        )
        with process:
            yield self._wait(process)

    def _wait(self, process: ServerProcess) -> str:
        deadline = time.monotonic() + 150
        while time.monotonic() < deadline:
            log = process.log_tail(10_000)
            address = re.search(r"running on (http://127\.0\.0\.1:\d+)", log, re.IGNORECASE)
            if address and count_ready_workers(self.server, log) >= self.workers:
                return address[1]
            assert process.exit_status() is None, log
            time.sleep(0.05)
        raise AssertionError(process.log_tail(20))

    def change(self, step: dict[str, Any]) -> None:
        """Do what a step says, and nothing else."""
        kind, name, value, where = (step[key] for key in ("kind", "name", "value", "where"))
        if kind == "variable":
            self.variables[name] = str(value)
            return
        lines = self.file.read_text().splitlines()
        if kind == "attribute":
            number = int(where_of(where)) if step["sure"] else next(n for n, x in enumerate(lines, 1) if "class " in x)
            lines.insert(number, f"    {name} = {value}")
            self.inserted.append(number)
            self.file.write_text("\n".join(lines) + "\n")
            return
        assert kind == "argument", step
        tree = ast.parse("\n".join(lines))
        function, number = where.partition(" ")[0], int(where_of(where))
        number += sum(line < number for line in self.inserted)
        (call,) = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and node.lineno == number and ast.unparse(node.func) == function
        ]
        call.keywords = [keyword for keyword in call.keywords if keyword.arg != name]
        call.keywords.append(ast.keyword(name, ast.Constant(value)))
        self.file.write_text(ast.unparse(tree))


def where_of(where: str) -> str:
    """The line in "Env (app.py:5)"."""
    match = re.fullmatch(r"\w+ \(app\.py:(\d+)\)", where)
    assert match, where
    return match[1]


def check(url: str, sessions: int, file: Path) -> dict[str, Any]:
    """What `openenv-scale check` found of capacity."""
    command = [sys.executable, "-m", "pytest_openenv_scale", "check", url, "--sessions", str(sessions), "--json", file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode in (0, 1), done.stderr
    return {question["name"]: question for question in json.loads(file.read_text())["questions"]}["capacity"]


def kinds(steps: list[dict[str, Any]]) -> list[str]:
    return [step["kind"] for step in steps]


def apply_until_it_fits(served: Served, sessions: int) -> list[dict[str, Any]]:
    """Do what is advised, in order, what is not sure only as long as sessions are refused; return the steps."""
    with served.running() as url:
        refused = check(url, sessions, served.folder / "before.json")
    assert refused["outcome"] == "missed"
    steps = refused["steps"]
    changes = [step for step in steps if step["kind"] != "ask"]
    assert changes
    while changes:
        served.change(changes.pop(0))
        if changes and changes[0]["sure"]:
            continue
        with served.running() as url:
            fits = check(url, sessions, served.folder / "after.json")
        if fits["outcome"] == "met":
            return steps
    raise AssertionError(f"after {steps}: {fits}")


def serve(app: str, folder: Path, python: Path, **options: Any) -> Served:
    served = Served(folder, python, log_path=folder / "server.log", **options)
    served.file.write_text(app)
    return served


@pytest.mark.parametrize("package", newest_and_oldest(PACKAGES))
def test_an_environment_without_the_flag_holds_as_many_as_asked(package: str, tmp_path: Path) -> None:
    steps = apply_until_it_fits(serve(DEFAULT, tmp_path, openenv_python(package)), 8)
    assert kinds(steps) == ["attribute", "argument", "ask"]
    assert all(step["sure"] for step in steps)


def test_the_argument_alone_keeps_such_a_server_from_starting(tmp_path: Path) -> None:
    served = serve(DEFAULT, tmp_path, openenv_python(OPENENV_0_10))
    served.change({"kind": "argument", "name": "max_concurrent_envs", "value": 8, "where": "create_app (app.py:20)"})
    with pytest.raises(AssertionError, match="is not marked as SUPPORTS_CONCURRENT_SESSIONS"), served.running():
        pass


@pytest.mark.parametrize(
    ("app", "advised"),
    [
        pytest.param(NUMBER, ["argument", "ask"], id="number"),
        pytest.param(READ, ["variable", "ask"], id="variable"),
        pytest.param(READ_UNMARKED, ["attribute", "variable", "ask"], id="variable-without-flag"),
        pytest.param(CONFIGURED, ["argument", "ask"], id="configuration"),
        pytest.param(HIDDEN, ["attribute", "variable", "argument", "ask"], id="hidden"),
    ],
)
def test_what_binds_is_what_is_changed(app: str, advised: list[str], tmp_path: Path) -> None:
    steps = apply_until_it_fits(serve(app, tmp_path, openenv_python(OPENENV_0_10)), 8)
    assert kinds(steps) == advised


def test_each_of_several_workers_gets_room(tmp_path: Path) -> None:
    steps = apply_until_it_fits(serve(READ, tmp_path, openenv_python(OPENENV_0_10), workers=2), 16)
    assert [(step["kind"], step["value"]) for step in steps[:-1]] == [("variable", 16)]


def test_under_hypercorn_it_is_the_same(tmp_path: Path) -> None:
    python = openenv_and_project(OPENENV_0_10, tmp_path / "python")
    steps = apply_until_it_fits(serve(READ_UNMARKED, tmp_path, python, server="hypercorn"), 8)
    assert kinds(steps) == ["attribute", "variable", "ask"]


SCALING = """
@pytest.mark.scaling(batches=[{batch}], waits=[{wait}], timeout="20s", modes={mode!r})
@pytest.mark.slo(max_batch={batch})
def test_scale(scaling):
    scaling.run()
"""


CONNECTIONS = "local:builtin,limit_concurrency=5,server=uvicorn,workers=1"


def measure(folder: Path, batch: int, mode: str, *options: str, wait: float = 0.1) -> PytestRun:
    folder.mkdir()
    write_test(folder, SCALING.format(batch=batch, mode=mode, wait=wait))
    return run_pytest(folder, *options)


@pytest.mark.parametrize(
    ("target", "batch", "mode", "cause"),
    [
        pytest.param("local:builtin,max_envs=2,workers=1", 8, "ws", "capacity", id="sessions"),
        pytest.param(
            "local:builtin,max_envs=2,server=uvicorn,workers=2", 8, "ws", "capacity", id="sessions-of-workers"
        ),
        pytest.param(
            "local:builtin,limit_concurrency=5,server=uvicorn,workers=1",
            32,
            "http",
            "limit_concurrency",
            id="connections",
        ),
        pytest.param("local:builtin,nofile=64,server=uvicorn,workers=1", 128, "ws", "descriptors", id="descriptors"),
    ],
)
def test_a_key_of_the_target_is_changed(target: str, batch: int, mode: str, cause: str, tmp_path: Path) -> None:
    red = measure(tmp_path / "red", batch, mode, "--openenv-target", target)
    assert red.code == 1, red.output
    (steps,) = [refused["steps"] for refused in red.refusals() if refused["cause"] == cause]
    for step in steps:
        if step["kind"] == "key":
            target, changed = re.subn(rf"\b{step['name']}=\w+", f"{step['name']}={step['value']}", target)
            assert changed == 1
    green = measure(tmp_path / "green", batch, mode, "--openenv-target", target)
    assert green.code == 0, green.output


@pytest.mark.parametrize(
    ("cause", "batch", "mode", "options", "prefix"),
    [
        pytest.param("limit_concurrency", 32, "http", ["--limit-concurrency", "5"], "", id="connections"),
        pytest.param("descriptors", 128, "ws", [], "ulimit -n 64;", id="descriptors"),
    ],
)
def test_what_starts_uvicorn_is_changed(
    cause: str, batch: int, mode: str, options: list[str], prefix: str, tmp_path: Path
) -> None:
    with uvicorn_server(tmp_path, *options, prefix=prefix) as url:
        red = measure(tmp_path / "red", batch, mode, "--openenv-url", url)
    assert red.code == 1, red.output
    ((step,),) = [refused["steps"] for refused in red.refusals() if refused["cause"] == cause]
    if step["kind"] == "option":
        options = [step["name"], str(step["value"])]
    else:
        prefix = f"ulimit {step['name']} {step['value']};"
    with uvicorn_server(tmp_path, *options, prefix=prefix) as url:
        green = measure(tmp_path / "green", batch, mode, "--openenv-url", url)
    assert green.code == 0, green.output


SILENT = """
import os, pathlib, subprocess
from pytest_openenv_scale.server.app import app as built_in
sessions = 0
async def app(scope, receive, send):
    global sessions
    if scope["type"] == "websocket":
        sessions += 1
        marker = pathlib.Path(__file__).with_name("silent")
        if sessions == 6 and not marker.exists():
            marker.touch()
            pid = os.getpid()
            subprocess.Popen(["sh", "-c", f"sleep 1; kill -STOP {pid}; sleep 7; kill -CONT {pid}"])
    await built_in(scope, receive, send)
"""
"""One worker answers nothing for 7 s, as one does that has thousands of sessions."""


def test_a_busy_worker_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "silent.py").write_text(SILENT)
    options = ["--workers", "2"]
    with uvicorn_server(tmp_path, *options, app="silent:app") as url:
        red = measure(tmp_path / "red", 32, "ws", "--openenv-url", url, wait=10)
    assert red.code == 1, red.output
    ((step,),) = [refused["steps"] for refused in red.refusals() if refused["cause"] == "worker_killed"]
    (tmp_path / "silent").unlink()
    with uvicorn_server(tmp_path, *options, step["name"], str(step["value"]), app="silent:app") as url:
        green = measure(tmp_path / "green", 32, "ws", "--openenv-url", url, wait=10)
    assert (tmp_path / "silent").exists()  # It was silent again.
    assert green.code == 0, green.output
