"""Inner pytest runs, in this process where that is safe; what they share is imported once, here."""

from __future__ import annotations

import gc
import importlib.metadata
import json
import re
import tempfile
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest
from tests.plugin import fakes

import pytest_openenv_scale.plugin.finish
import pytest_openenv_scale.plugin.progress
import pytest_openenv_scale.reporting.json
import pytest_openenv_scale.reporting.markdown.run
import pytest_openenv_scale.reporting.text.overview
import pytest_openenv_scale.targets.local.target
import pytest_openenv_scale.targets.url  # noqa: F401
from report_schema import check_reports_below

ROOT = Path(__file__).parents[2]
INI = """
[pytest]
asyncio_default_fixture_loop_scope = function
filterwarnings = error
addopts = -p tests.plugin.fakes -p no:hypothesispytest -p no:anyio --strict-markers
openenv_target = fake
openenv_batches = 1,2
openenv_waits = 0.01
"""


@pytest.fixture(autouse=True)
def _little_to_look_through() -> Iterator[None]:
    """A pytest that ends looks for garbage five times: not in all that this process has loaded before."""
    gc.freeze()
    yield
    gc.unfreeze()


class Inner:
    """A folder with tests in it, and pytest runs there."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.path = pytester.path
        self.ini(INI)

    def ini(self, text: str) -> None:
        self.pytester.makefile(".ini", pytest=text)

    def tests(self, body: str, name: str = "test_it") -> None:
        self.pytester.makepyfile(**{name: f"import asyncio\nimport pytest\n\n{body}"})

    def run(self, *arguments: str) -> pytest.RunResult:
        return self.pytester.runpytest_inprocess(*arguments)

    def run_process(self, *arguments: str) -> pytest.RunResult:
        return self.pytester.runpytest_subprocess(*arguments)

    @property
    def runs(self) -> list[Path]:
        """The run directories there are."""
        return sorted((self.path / ".openenv-results").glob("2*"))

    @property
    def manifest(self) -> dict:
        """The manifest of the one run."""
        (run,) = self.runs
        return json.loads((run / "manifest.json").read_text())

    @property
    def events(self) -> list[str]:
        """What the fakes did."""
        return fakes.fake_events(self.path)


_TITLE = re.compile(r"_+ (?:ERROR at setup of )?(\S+) _+")
"""Above what is said of a failing test."""


def errors_of(result: pytest.RunResult, tests: Iterable[str]) -> str:
    """What was wrong with each of these tests: its name and the line below that, which is all there is."""
    titles = [(at, match[1]) for at, line in enumerate(result.outlines) if (match := _TITLE.fullmatch(line))]
    assert sorted(name.rpartition(".")[2] for _, name in titles) == sorted(tests)
    result.stdout.no_fnmatch_line("*Traceback*")
    assert all(result.outlines[at + 2].startswith(("_", "=")) for at, _ in titles)
    return "\n".join(f"{name}: {result.outlines[at + 1]}" for at, name in titles)


def usage_error_of(result: pytest.RunResult) -> str:
    """The one line a run ended with before anything started."""
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.errlines if line.strip()]
    return line


@pytest.fixture(scope="session")
def plugin_distributions() -> list[Distribution]:
    """Of all that is installed, what has plugins: a pytest that starts reads all of it twice."""
    return [one for one in distributions() if any(point.group == "pytest11" for point in one.entry_points)]


@pytest.fixture
def inner(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path_factory, plugin_distributions
) -> Iterator[Inner]:
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: plugin_distributions)
    for name in ("CI", "GITHUB_STEP_SUMMARY", "PYTEST_ADDOPTS", "MAX_CONCURRENT_ENVS", "WORKERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    yield Inner(pytester)
    check_reports_below(pytester.path)


SWEEP = """
@pytest.mark.scaling
def test_scale(scaling):
    scaling.run()
"""


@pytest.fixture
def swept(inner: Inner) -> Inner:
    """A folder with one scaling test that measures batches 1 and 2 on the fake target."""
    inner.tests(SWEEP)
    return inner
