"""What the source of an application says of its sessions: which of flag, argument and variable binds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_openenv_scale.core.endpoint import SessionSettings
from pytest_openenv_scale.targets.common.source import read_session_settings, settings_of_process

IMPORTS = "import os\nfrom functools import cache, partial\nfrom openenv.core.env_server import *\n"
CLASS = "from openenv.core.env_server import Environment\n\n\nclass Env(Environment):\n    pass\n"
MARKED = CLASS.replace("pass", "SUPPORTS_CONCURRENT_SESSIONS: bool = True")
APP = "from env import Env\napp = create_app({})\n"


def read(folder: Path, app: str, /, **files: str) -> SessionSettings | None:
    for name, text in {"env": CLASS, **files}.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "app.py").write_text(IMPORTS + app)
    return read_session_settings("app:app", [folder])


def fields(settings: SessionSettings | None, *names: str) -> tuple[Any, ...]:
    assert settings is not None
    return tuple(getattr(settings, name) for name in names)


def test_an_app_without_a_limit_holds_one_session_and_lacks_the_flag(tmp_path: Path) -> None:
    assert read(tmp_path, APP.format("Env, A, O")) == SessionSettings(
        "create_app", "app.py:5", argument=1, environment="Env", class_at="env.py:4", flag=False
    )


@pytest.mark.parametrize(
    ("arguments", "argument", "variable"),
    [
        ("Env, A, O, max_concurrent_envs=4", 4, None),
        ("Env, A, O, 'name', 5", 5, None),
        ("Env, A, O, max_concurrent_envs=LIMIT", 6, None),
        ("Env, A, O, max_concurrent_envs=int(os.getenv('MAX_CONCURRENT_ENVS', '8'))", None, "MAX_CONCURRENT_ENVS"),
        ("Env, A, O, max_concurrent_envs=int(os.environ['SLOTS'])", None, "SLOTS"),
        ("Env, A, O, max_concurrent_envs=FROM_VARIABLE", None, "JULIA_MAX_WORKERS"),
        ("Env, A, O, concurrency_config=ConcurrencyConfig(max_concurrent_envs=3)", 3, None),
        ("Env, A, O, concurrency_config=CONFIG", 7, None),
        ("Env, A, O, max_concurrent_envs=computed()", None, None),
        ("Env, A, O, max_concurrent_envs=2 * LIMIT", None, None),
        ("Env, A, O, max_concurrent_envs=int(os.environ['IN_ALL']) // 2", None, None),
        ("Env, A, O, max_concurrent_envs=4 if os.getenv('DEBUG') else 64", None, None),
        ("Env, A, O, max_concurrent_envs=int(os.getenv('SLOTS')) if os.getenv('DEBUG') else 1", None, "SLOTS"),
        ("Env, A, O, **options", None, None),
        ("*arguments", None, None),
    ],
)
def test_a_limit_is_a_number_a_variable_or_left_open(
    tmp_path: Path, arguments: str, argument: int | None, variable: str | None
) -> None:
    named = (
        "LIMIT = 6\nFROM_VARIABLE = max(1, int(os.environ.get('JULIA_MAX_WORKERS') or LIMIT))\n"
        "CONFIG = ConcurrencyConfig(max_concurrent_envs=7)\n"
    )
    assert fields(read(tmp_path, named + APP.format(arguments)), "argument", "variable") == (argument, variable)


def test_the_limit_in_a_configuration_is_changed_there(tmp_path: Path) -> None:
    config = "CONFIG = ConcurrencyConfig(max_concurrent_envs=7)\n"
    settings = read(tmp_path, config + APP.format("Env, A, O, concurrency_config=CONFIG"))
    assert fields(settings, "function", "call") == ("ConcurrencyConfig", "app.py:4")


@pytest.mark.parametrize(
    ("env", "flag"),
    [
        (CLASS, False),
        (MARKED, True),
        (MARKED.replace("True", "False"), False),
        (MARKED.replace("True", "bool(1)"), None),
        (CLASS + "\n\nEnv.SUPPORTS_CONCURRENT_SESSIONS = True\n", None),
        (CLASS + "\n\nsetattr(Env, 'SUPPORTS_CONCURRENT_SESSIONS', True)\n", None),
        (f'"""It lacks SUPPORTS_CONCURRENT_SESSIONS."""\n{CLASS}', False),
        (CLASS.replace("(Environment)", "(Environment[A, O, S])"), False),
        (CLASS.replace("Environment", "MCPEnvironment"), False),
        (CLASS.replace("import Environment", "import Environment as Base").replace("(Environment)", "(Base)"), False),
        (CLASS.replace("openenv.core.env_server", "their_package"), None),
        ("class Env:\n    pass\n", None),
        (MARKED.replace("Env(", "Base(") + "\n\nclass Env(Base):\n    pass\n", True),
        ("from base import Env\n", True),
    ],
)
def test_the_flag_is_that_of_the_class_or_of_its_bases(tmp_path: Path, env: str, flag: bool | None) -> None:
    assert fields(read(tmp_path, APP.format("Env, A, O"), env=env, base=MARKED), "flag") == (flag,)


@pytest.mark.parametrize(
    ("definition", "environment", "shared"),
    [
        ("make = Env", "Env", None),
        ("make = lambda: Env()", "Env", None),
        ("make = partial(Env, size=4)", "Env", None),
        ("def make():\n    env = Env()\n    return env", "Env", None),
        ("ONE = Env()\nmake = lambda: ONE", "Env", "app.py:5"),
        ("ONE = Env()\ndef make():\n    return ONE", "Env", "app.py:5"),
        ("@cache\ndef make():\n    return Env()", "Env", "app.py:6"),
        (
            "ONE = None\ndef make():\n    global ONE\n    if not ONE:\n        ONE = Env()\n    return ONE",
            "Env",
            "app.py:9",
        ),
        ("make = Env() if old else Env", "Env", None),
        ("make = load('Env')", None, None),
    ],
)
def test_a_factory_makes_a_class_or_hands_out_one_object(
    tmp_path: Path, definition: str, environment: str | None, shared: str | None
) -> None:
    app = f"from env import Env\n{definition}\napp = create_app(make, A, O)\n"
    assert fields(read(tmp_path, app), "environment", "shared") == (environment, shared)


@pytest.mark.parametrize(
    ("app", "call"),
    [
        ("from server.main import app\n", "server/main.py:2"),
        ("def build():\n    return create_app(Env)\napp = build()\n", "app.py:5"),
        ("server = HTTPEnvServer(Env, A, O, 2)\nserver.register_routes(app)\n", "app.py:4"),
        ("other = create_app(Other)\napp = create_app(Env)\n", "app.py:5"),
        ("if new:\n    app = create_app(Env)\nelse:\n    app = create_app(Env)\n", "app.py:5 and app.py:7"),
    ],
)
def test_the_call_that_makes_the_app_is_looked_for(tmp_path: Path, app: str, call: str) -> None:
    server = "from .made import Env\napp = create_app(Env, A, O)\n"
    settings = read(tmp_path, f"{app}from env import Env\n", server__main=server, server__made=CLASS)
    assert fields(settings, "call", "environment", "flag") == (call, "Env", False)


def test_calls_that_differ_leave_open_what_they_differ_in(tmp_path: Path) -> None:
    app = "if new:\n    app = create_app(Env, A, O, 'name', 2)\nelse:\n    app = create_app(Env, A, O)\n"
    assert fields(read(tmp_path, f"from env import Env\n{app}"), "argument", "flag") == (None, False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "app = 1\n",
        "app = (\n",
        f"app = {'-' * 100_000}1\n",
        "\0",
        "from app import app\n",
        f"from {'.' * 99}env import Missing\napp = create_app(Missing)\n",
        "app = create_app()\n",
    ],
)
def test_source_that_says_nothing_is_no_error(tmp_path: Path, text: str) -> None:
    settings = read(tmp_path, text)
    assert settings is None or settings.environment is None


@pytest.mark.parametrize(
    "line",
    ["from app import Base", "Base = Base", "Base = Base()", "class Base(Base): pass", "def Base(): return Base()"],
)
@pytest.mark.parametrize("made", ["Base", "Env"])
def test_names_are_not_followed_in_circles(tmp_path: Path, line: str, made: str) -> None:
    """Each of 99 names leads to 99 others: whoever follows them all is never done."""
    settings = read(tmp_path, f"{line}\n" * 99 + f"class Env(Base): pass\napp = create_app({made})\n")
    assert settings is not None
    assert settings.flag is None


def test_an_app_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    assert read_session_settings("no.such:app", [tmp_path]) is None
    assert read_session_settings(":app", [tmp_path]) is None


PIECES = """app = |create_app|(|)|Env|, |
|class Env|(Environment)|:|    pass|lambda: |def make():|    return |from env import |from . import |make|*|**x|1|
global make|
@cache"""
WORDS = st.lists(st.sampled_from(PIECES.split("|")), max_size=24).map("".join)


@given(WORDS, WORDS)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_source_is_an_error(tmp_path: Path, app: str, env: str) -> None:
    settings = read(tmp_path, app, env=env)
    assert settings is None or settings.function in (
        "create_app",
        "create_fastapi_app",
        "HTTPEnvServer",
        "ConcurrencyConfig",
    )


@pytest.mark.parametrize("command", [["-c", "0", "app:app"], ["app.py"], ["-c", "0", "app:app", "--app-dir", "."]])
def test_the_app_of_a_process_is_found_by_its_command_line(tmp_path: Path, command: list[str]) -> None:
    read(tmp_path, APP.format("Env, A, O, max_concurrent_envs=4"))
    if command[0] == "-c":
        command = ["-c", "print(flush=True); input()", *command[2:]]
    else:
        (tmp_path / "openenv").mkdir()
    environ = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    if command == ["app.py"]:
        (tmp_path / "openenv" / "__init__.py").touch()
        (tmp_path / "openenv" / "core").mkdir()
        (tmp_path / "openenv" / "core" / "__init__.py").touch()
        (tmp_path / "openenv" / "core" / "env_server.py").write_text("print(flush=True)\ninput()\n")
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, *command], cwd=tmp_path, stdin=pipe, stdout=pipe, env=environ)
    try:
        assert process.stdout is not None
        process.stdout.readline()  # It runs, and not the fork that becomes it.
        assert fields(settings_of_process(process.pid), "argument", "environment") == (4, "Env")
    finally:
        process.communicate(b"\n")


@pytest.mark.parametrize(
    ("arguments", "option"), [(["--max-envs", "8"], "--max-envs"), (["--max-envs=8"], "--max-envs"), ([], None)]
)
def test_an_option_of_the_built_in_server_outranks_its_variable(arguments: list[str], option: str | None) -> None:
    command = [sys.executable, "-c", "print(flush=True); input()", "-m", "pytest_openenv_scale.server", *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        assert fields(settings_of_process(process.pid), "variable", "option") == ("MAX_CONCURRENT_ENVS", option)
    finally:
        process.communicate(b"\n")


def test_a_process_that_is_gone_says_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert settings_of_process(process.pid) is None
