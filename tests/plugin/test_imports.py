"""What a pytest run pays that does not use the plugin: nothing heavy; and what the package offers by name."""

from __future__ import annotations

import importlib
import sys

import pytest

import pytest_openenv_scale

HEAVY = ("aiohttp", "pyarrow", "pandas", "plotnine", "psutil", "starlette", "hypercorn", "uvicorn", "uvloop", "yaml")


@pytest.mark.parametrize("ini", ["", "openenv_target = local,server=uvicorn\nopenenv_batches = 1\n"])
def test_a_run_that_measures_nothing_imports_nothing_heavy(inner, ini):
    inner.ini(f"[pytest]\nasyncio_default_fixture_loop_scope = function\n{ini}")
    inner.tests(
        f"import sys\n\ndef test_light():\n    assert [name for name in {HEAVY} if name in sys.modules] == []\n\n"
        "@pytest.mark.scaling\ndef test_scale(scaling):\n    scaling.run()\n"
    )
    inner.run_process("-m", "not scaling", "-p", "no:hypothesispytest").assert_outcomes(passed=1, deselected=1)


def test_nor_does_the_controller_of_xdist_workers(inner):
    inner.ini("[pytest]\nasyncio_default_fixture_loop_scope = function\naddopts = -p no:hypothesispytest\n")
    inner.tests("def test_light():\n    pass\n")
    inner.pytester.makeconftest(
        "import sys\nfrom pathlib import Path\n\ndef pytest_unconfigure(config):\n"
        "    if not hasattr(config, 'workerinput'):\n"
        f"        Path('heavy').write_text(' '.join(name for name in {HEAVY} if name in sys.modules))\n"
    )
    inner.run_process("-n1").assert_outcomes(passed=1)
    assert (inner.path / "heavy").read_text() == ""


def test_importing_the_package_imports_none_of_its_parts(inner):
    code = (
        "import sys, pytest_openenv_scale\n"
        "assert [name for name in sys.modules if name.startswith('pytest_openenv_scale.')] == []\n"
    )
    result = inner.pytester.run(sys.executable, "-c", code)
    assert result.ret == 0


def test_the_public_names_are_these():
    assert sorted(pytest_openenv_scale.__all__) == [
        *("Cell", "Curve", "Endpoint", "Run", "Settings", "Sweep", "Target", "Verdict", "Workload", "scaling", "slo")
    ]


@pytest.mark.parametrize("name", pytest_openenv_scale.__all__)
def test_a_public_name_can_be_imported_and_is_listed(name):
    module = importlib.import_module("pytest_openenv_scale")
    assert getattr(module, name) is not None
    assert name in dir(module)


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Sweeep'"):
        _ = pytest_openenv_scale.Sweeep
