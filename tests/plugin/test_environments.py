"""Which environment a test measures: that of the nearest `openenv.yaml`, and never one that nobody named."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from pytest_openenv_scale.plugin.invocation import Environments

SWEEP = """
import pytest

@pytest.mark.scaling
def test_scale(scaling):
    scaling.run()
"""
ENVIRONMENT = "app: server.app:app\n"


def environment(folder: Path, app: str | None = None) -> Path:
    """Write an environment with a test; `app` is the code of its server."""
    (folder / "tests").mkdir(parents=True)
    (folder / "openenv.yaml").write_text(ENVIRONMENT)
    (folder / "tests" / f"test_{folder.name}.py").write_text(SWEEP)
    if app is not None:
        (folder / "server").mkdir()
        (folder / "server" / "app.py").write_text(app)
    return folder


@pytest.fixture
def several(inner):
    """A repository with two environments, pytest's configuration above both."""
    environment(inner.path / "envs" / "echo")
    environment(inner.path / "envs" / "maze")
    return inner


def starts_and_stops(inner) -> list[str]:
    return [line for line in inner.events if not line.startswith("cell")]


def test_each_test_is_run_on_its_own_environment_one_after_the_other(several):
    several.run().assert_outcomes(passed=2)
    assert [line.split(" in ") for line in starts_and_stops(several)] == [
        *(["start fake largest=2", "echo"], ["stop fake", "echo"]),
        *(["start fake largest=2", "maze"], ["stop fake", "maze"]),
    ]


def test_several_targets_times_several_environments(several):
    several.run("--openenv-target", "fake", "--openenv-target", "fake,capacity=9").assert_outcomes(passed=4)
    assert [line.split()[1::3] for line in several.events if line.startswith("start")] == [
        *(["fake", "echo"], ["fake,capacity=9", "echo"]),
        *(["fake", "maze"], ["fake,capacity=9", "maze"]),
    ]


@pytest.mark.parametrize("hidden", [True, False])
def test_a_test_has_the_same_name_in_the_run_as_alone(several, monkeypatch, hidden):
    """Since pytest 8.4 the environment is no part of a test's id; before, it is taken out of the name in the run."""
    if not hidden:
        monkeypatch.delattr(pytest, "HIDDEN_PARAM", raising=False)
    several.run().assert_outcomes(passed=2)
    names = ["envs/echo/tests/test_echo.py::test_scale", "envs/maze/tests/test_maze.py::test_scale"]
    assert [sweep["test"] for sweep in several.manifest["sweeps"]] == names


def test_the_working_directory_comes_before_pytests_root(several):
    several.tests(SWEEP)
    several.pytester.chdir()
    several.run("--rootdir", ".", "test_it.py").assert_outcomes(passed=1)
    assert starts_and_stops(several) == ["start fake largest=2", "stop fake"]
    finds = Environments(several.pytester.parseconfig("--rootdir", str(several.path)))
    assert finds.starts(several.path / "test_it.py") == (several.path,)


def test_tests_of_one_folder_share_a_server_with_those_of_the_run(inner):
    environment(inner.path)
    inner.tests(SWEEP)
    inner.run().assert_outcomes(passed=2)
    assert starts_and_stops(inner) == ["start fake largest=2", "stop fake"]


def test_files_of_installed_packages_begin_at_the_working_directory(inner, tmp_path_factory):
    environment(inner.path)
    installed = tmp_path_factory.mktemp("lib") / "site-packages"
    package = environment(installed / "theirs")
    (package / "__init__.py").touch()
    shutil.move(package / "tests" / "test_theirs.py", package / "test_theirs.py")
    inner.pytester.syspathinsert(installed)
    inner.run("--pyargs", "theirs", "--rootdir", ".").assert_outcomes(passed=1)
    assert starts_and_stops(inner) == ["start fake largest=2", "stop fake"]


def test_the_suite_begins_at_the_working_directory_wherever_it_lies(inner):
    finds = Environments(inner.pytester.parseconfig())
    from pytest_openenv_scale.suite import test_scaling

    assert finds.starts(Path(test_scaling.__file__)) == (inner.path,)


def test_a_fixture_that_is_asked_for_by_name_is_refused_where_it_would_be_that_of_another_environment(several):
    environment(several.path / "root")
    shutil.move(several.path / "root" / "openenv.yaml", several.path / "openenv.yaml")
    (several.path / "envs" / "echo" / "tests" / "test_echo.py").write_text(
        "def test_own(request):\n    request.getfixturevalue('openenv_target')\n"
    )
    result = several.run("envs/echo")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["the environment of *test_echo.py is *envs/echo, *: take openenv_target or scaling*"])
    assert several.events == []


def test_where_no_environment_is_in_reach_one_line_says_where_was_looked(inner, golden):
    inner.pytester.mkdir("tests").joinpath("test_it.py").write_text(SWEEP)
    result = inner.run("--openenv-target", "local")
    result.assert_outcomes(errors=1)
    (error,) = [line for line in result.outlines if line.startswith("target local: ")]
    golden(error)
    assert inner.runs == []


def test_below_the_folder_of_pytests_configuration_the_environment_of_the_test_is_measured(inner, monkeypatch):
    """An environment for one session, in a repository laid out as huggingface/OpenEnv is: not green for two."""
    inner.ini("[pytest]\npythonpath = src\naddopts = -p no:hypothesispytest -p no:asyncio\nfilterwarnings = error\n")
    limited = "from shared import MAX\nimport os\nos.environ['MAX_CONCURRENT_ENVS'] = MAX\n"
    app = environment(inner.path / "envs" / "one", f"{limited}from pytest_openenv_scale.server.app import app\n")
    inner.pytester.mkdir("src").joinpath("shared.py").write_text("MAX = '1'\n")
    arguments = ("--openenv-batches", "1,2", "--openenv-waits", "0", "--openenv-slo", "max_batch>=2")
    for folder in (inner.path, app):
        monkeypatch.chdir(folder)
        result = inner.pytester.run(sys.executable, "-m", "pytest", *arguments)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["max_batch 1 < 2 (*", "*served: server.app:app of envs/one/openenv.yaml*"])


@pytest.mark.parametrize("tests", ["tests", "."])
@pytest.mark.parametrize("name", ["my-env", "my_env"])
def test_the_root_of_an_environment_need_not_import_for_its_tests_to_run(inner, name, tests):
    """`openenv init` writes an `__init__.py` there that imports its neighbours relatively."""
    root = environment(inner.path / name)
    (root / "__init__.py").write_text("from .client import Missing\n" if name == "my-env" else "")
    test = next(root.glob("tests/test_*.py"))
    shutil.move(test, root / tests / "test_scaling.py")
    shutil.move(inner.path / "pytest.ini", root / "pytest.ini")
    inner.run("--rootdir", str(root), "-c", str(root / "pytest.ini"), str(root)).assert_outcomes(passed=1)
