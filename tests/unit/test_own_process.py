"""No file of a user takes the place of the standard library in a process of ours, and why one ended is known."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from load_processes import actions, environment, generators
from playing import order
from pytest_openenv_scale.config.workload import Workload
from pytest_openenv_scale.core.files import last_error_in
from pytest_openenv_scale.core.own_process import command, import_user_module, standard_library_first
from pytest_openenv_scale.load import runner
from pytest_openenv_scale.load.runner import CellResult, LoadGenerator
from pytest_openenv_scale.targets.common.options import TargetContext
from pytest_openenv_scale.targets.local.target import ServedApplication, ServerOptions
from shadows import NAMES, write_shadows

__all__ = ["actions", "environment", "generators"]  # fixtures

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no signal lacks a name")

# The standard library comes first


def test_the_standard_library_is_put_in_front_and_all_else_stays_in_order():
    first = standard_library_first(["/repository", *sys.path, "/more"])
    standard = [
        entry for entry in first if entry.endswith((f"python3.{sys.version_info.minor}", "lib-dynload", ".zip"))
    ]
    assert first[: len(standard)] == standard
    assert first[len(standard) :] == ["/repository", *(entry for entry in sys.path if entry not in standard), "/more"]


def test_neither_the_folder_a_process_starts_in_nor_pythonpath_shadows_it(tmp_path):
    imported = subprocess.check_output([sys.executable, "-c", "import pytest, sys; print(*sys.modules)"], text=True)
    write_shadows(tmp_path, set(NAMES) - set(imported.split()))  # pytest itself does not live without these.
    done = subprocess.run(
        command("pytest_openenv_scale.selftest.null_server"),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        input="",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert '"sessions":0' in done.stdout


def test_load_processes_find_a_user_s_modules_but_no_namesakes_of_the_library(environment, tmp_path, monkeypatch):
    write_shadows(tmp_path, set(NAMES) & set(sys.modules))  # This process has imported them and will not again.
    (tmp_path / "moves.py").write_text("import queue, secrets, calendar\ndef act(session, step): return {}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    with LoadGenerator(1) as generator:
        request = order(environment, batch=4, workload=Workload((), function="moves:act"))
        result = generator.run_cell(request)
    assert [row.error_message for row in result.rows] == [None] * 4


@pytest.mark.parametrize(("server", "workers"), [("hypercorn", 1), ("hypercorn", 2), ("uvicorn", 2)])
def test_a_served_application_is_found_in_its_folder_and_the_library_is_not(tmp_path, monkeypatch, server, workers):
    write_shadows(tmp_path)
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "app.py").write_text(
        "import os\nassert os.environ['PYTHONPATH'].split(os.pathsep)[0] == os.getcwd()\n"
        "import aiohttp\nassert aiohttp.mine\n"
        "from pytest_openenv_scale.server.app import app\n"
    )
    (tmp_path / "aiohttp.py").write_text("mine = True\n")
    options = ServerOptions(app="server.app:app", server=server, workers=workers)
    with ServedApplication(options, TargetContext(root=tmp_path), target="local") as served:
        served.wait({})


@pytest.mark.parametrize("package", [True, False])
def test_what_a_user_names_is_the_user_s_also_under_a_name_of_the_library(tmp_path, monkeypatch, package):
    if package:
        (tmp_path / "turtledemo").mkdir()
        (tmp_path / "turtledemo" / "__init__.py").touch()
        (tmp_path / "turtledemo" / "moves.py").write_text("import colorsys\nmine = True\n")
    else:
        (tmp_path / "turtledemo.py").write_text("import colorsys\nmine = True\n")
    write_shadows(tmp_path, ["colorsys"])
    monkeypatch.setattr(sys, "path", standard_library_first([str(tmp_path), *sys.path]))
    for name in ("turtledemo", "turtledemo.moves"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = import_user_module("turtledemo.moves" if package else "turtledemo")
    assert getattr(module, "mine", False)
    for name in ("turtledemo", "turtledemo.moves"):
        sys.modules.pop(name, None)


# Why a load process ended

FAILS_AT_START = "raise RuntimeError('my own queue.py\\nwas imported')"
FAILS_IN_A_CELL = """
import asyncio
from pytest_openenv_scale.load import worker, worker_share
async def fail(self):
    raise ZeroDivisionError("a bug with Bearer hunter2-swordfish")
worker_share.WorkerShare.run = fail
worker.main()
"""
DIES = "import os, sys; print('out of luck', file=sys.stderr, flush=True); os.kill(os.getpid(), {})"
SAYS_MUCH = "import sys; sys.stderr.write('x\\n' * 5_000_000); sys.exit('enough')"


@pytest.fixture
def ended(monkeypatch, environment) -> Callable[..., CellResult]:
    """Run a cell in a load process that runs this code instead."""

    def run(code: str, **details) -> CellResult:
        monkeypatch.setattr(runner, "command", lambda module, fd: [sys.executable, "-c", code, fd])
        with LoadGenerator(1) as generator:
            return generator.run_cell(order(environment, batch=2, **details))

    return run


@pytest.mark.parametrize(
    ("code", "words", "why"),
    [
        (FAILS_AT_START, "exited with code 1", "RuntimeError: my own queue.py"),
        (FAILS_IN_A_CELL, "exited with code 1", "ZeroDivisionError: a bug with ***"),
        ("import sys; sys.exit('no luck')", "exited with code 1", "no luck"),
        (DIES.format(int(signal.SIGSEGV)), "killed by SIGSEGV", "out of luck"),
        pytest.param(DIES.format(40), "killed by signal 40", "out of luck", marks=on_linux),
        (SAYS_MUCH, "exited with code 1", "enough"),
    ],
    ids=["at the start", "in a cell", "exit", "signal", "nameless signal", "much"],
)
def test_how_and_why_a_load_process_ended_is_in_the_rows_and_in_the_finding(golden, ended, capfd, code, words, why):
    result = ended(code, headers={"Authorization": "Bearer hunter2-swordfish"})
    assert {row.error_message for row in result.rows} == {f"load process {words}: {why}"}
    (died,) = [finding for finding in result.findings if finding.kind == "process_died"]
    golden(died.message)
    errors = capfd.readouterr().err
    assert errors.count(why) == 1
    assert len(errors) <= 64 * 1024
    assert "hunter2" not in errors


def test_a_load_process_that_says_nothing_is_told_without_a_reason(golden, ended):
    result = ended("import os; os._exit(7)")
    golden({row.error_message for row in result.rows})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", None),
        ("\n \n", None),
        ("one\ntwo\n", "two"),
        ("Traceback (most recent call last):\n  File\n    x\nValueError: a\nb\n", "ValueError: a"),
        ("  File\n    x y\n      ^\nSyntaxError: invalid syntax\n", "SyntaxError: invalid syntax"),
        (
            "Traceback (most recent call last):\n  File\nValueError: first\n\nDuring handling\n\n"
            "Traceback (most recent call last):\n  File\nKeyError: 'then'\n",
            "KeyError: 'then'",
        ),
        (
            "Traceback (most recent call last):\n  File\nValueError: why\n"
            "Exception ignored in: <x>\nTraceback (most recent call last):\n  File\nOSError: later\n",
            "ValueError: why",
        ),
        ("x" * 1000, "x" * 300),
    ],
)
def test_the_reason_is_the_exception_that_ended_a_process(text: str, reason: str | None):
    assert last_error_in(text) == reason
