"""What a pytest run pays that does not use the plugin: nothing heavy; and what the package offers by name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

import pytest

import pytest_openenv_scale

PACKAGE = "pytest_openenv_scale"
PLUGIN = f"{PACKAGE}.plugin"
LIGHT = {
    *(PACKAGE, f"{PACKAGE}.config", f"{PACKAGE}.config.options", PLUGIN),
    *(f"{PLUGIN}.{name}" for name in ("hookspec", "invocation", "marks", "option_values")),
}
CONTROLLER = LIGHT | {f"{PACKAGE}.{name}" for name in ("results", "results.location")}
"""What a process that starts xdist workers needs besides: it names the run they may take part in."""

WRITES_MODULES = """
import sys
from pathlib import Path

def pytest_unconfigure(config):
    role = "worker" if hasattr(config, "workerinput") else "main"
    Path(f"{role}.modules").write_text(" ".join(sys.modules))
"""
HEAVY = (
    "aiohttp",
    "pyarrow",
    "pandas",
    "plotnine",
    "psutil",
    "starlette",
    "hypercorn",
    "uvicorn",
    "uvloop",
    "yaml",
    "rich",
)


@pytest.mark.parametrize("options", [(), ("openenv_target = local,server=uvicorn", "openenv_batches = 1")])
def test_a_run_that_measures_nothing_imports_nothing_heavy(inner, options):
    inner.ini("\n".join(["[pytest]", "asyncio_default_fixture_loop_scope = function", *options]))
    inner.tests(
        f"import sys\n\ndef test_light():\n    assert [name for name in {HEAVY} if name in sys.modules] == []\n\n"
        "@pytest.mark.scaling\ndef test_scale(scaling):\n    scaling.run()\n"
    )
    inner.run_process("-m", "not scaling", "-p", "no:hypothesispytest").assert_outcomes(passed=1, deselected=1)


@pytest.fixture
def added(inner) -> Callable[..., dict[str, set[str]]]:
    """Return what a run of one test imports, in each of its processes, that it does not without the plugin."""
    disabled = " ".join(f"-p no:{name}" for name in ("anyio", "asyncio", "hypothesispytest", "rerunfailures"))
    inner.ini(f"[pytest]\naddopts = {disabled} --strict-markers\nmarkers = scaling\n")
    inner.tests("@pytest.mark.parametrize('number', [1])\ndef test_light(number):\n    pass\n")
    inner.pytester.makeconftest(WRITES_MODULES)

    def modules(*arguments: str) -> dict[str, set[str]]:
        inner.run_process(*arguments).assert_outcomes(passed=1)
        return {path.stem: set(path.read_text().split()) for path in inner.path.glob("*.modules")}

    def added_by(*arguments: str) -> dict[str, set[str]]:
        without = modules(*arguments, "-p", f"no:{PACKAGE.removeprefix('pytest_')}")
        return {role: names - without[role] for role, names in modules(*arguments).items()}

    return added_by


@pytest.mark.parametrize("arguments", [(), ("-v",), ("-m", "not scaling")])
def test_a_run_that_uses_none_of_this_imports_the_plugin_and_nothing_else(added, arguments):
    assert added("-p", "no:xdist", *arguments) == {"main": LIGHT}


def test_nor_does_an_xdist_worker_and_what_starts_it_imports_what_names_a_run(added):
    assert added("-n1") == {"worker": LIGHT, "main": CONTROLLER}


def test_importing_the_package_imports_none_of_its_parts(inner):
    code = (
        "import sys, pytest_openenv_scale\n"
        "assert [name for name in sys.modules if name.startswith('pytest_openenv_scale.')] == []\n"
    )
    result = inner.pytester.run(sys.executable, "-c", code)
    assert result.ret == 0


def test_the_public_names_are_these():
    assert sorted(pytest_openenv_scale.__all__) == [
        *("Cell", "CellSummary", "CheckOutcome", "CheckResult", "Curve", "Endpoint", "Run", "Settings", "Subject"),
        *("Sweep", "Target", "TargetError", "TargetSpec", "Verdict", "Workload", "deploy_file", "scaling"),
        *("self_test", "single_session", "slo"),
    ]


@pytest.mark.parametrize("name", pytest_openenv_scale.__all__)
def test_a_public_name_can_be_imported_and_is_listed(name):
    module = importlib.import_module("pytest_openenv_scale")
    assert getattr(module, name) is not None
    assert name in dir(module)


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Sweeep'"):
        _ = pytest_openenv_scale.Sweeep
