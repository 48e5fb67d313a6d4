"""The wheel in a bare environment outside the checkout: what somebody gets who installs the project."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import zipfile
from email.message import Message
from email.parser import Parser
from html import unescape
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from environments import make_environment
from installed_wheel import ROOT, build_wheel, run
from server_process import running_server

pytestmark = pytest.mark.real

PACKAGE = "pytest_openenv_scale"

THREE_LINES = """\
import pytest
@pytest.mark.scaling(batches="1,4", waits=[0.1])
def test_it_scales(scaling): scaling.run()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that holds the wheel and what it asks for, and nothing else."""
    return make_environment(tmp_path_factory.mktemp("bare") / "venv", wheel)


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def test_the_wheel_holds_the_package_its_types_and_its_license_and_no_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    info = next(name.partition("/")[0] for name in names if ".dist-info/" in name)
    assert {name.partition("/")[0] for name in names} == {PACKAGE, info}
    assert f"{PACKAGE}/py.typed" in names
    assert f"{PACKAGE}/reporting/report.schema.json" in names
    assert {f"{PACKAGE}/reporting/html/templates/{name}" for name in ("report.html.j2", "report.css")} <= set(names)
    assert f"{PACKAGE}/reporting/templates/badge.svg.j2" in names
    assert f"{info}/licenses/LICENSE" in names
    assert not [name for name in names if re.search(r"(^|/)(tests|__pycache__)(/|$)", name)]
    # The suite's own is part of the suite; the project's is not.
    assert [name for name in names if name.endswith("conftest.py")] == [f"{PACKAGE}/suite/conftest.py"]


def deployed(wheel: Path) -> dict[str, bytes]:
    """The files below deploy/ that a wheel holds."""
    folder = f"{PACKAGE}/deploy/"
    with zipfile.ZipFile(wheel) as archive:
        return {
            name.removeprefix(folder): archive.read(name)
            for name in archive.namelist()
            if name.startswith(folder) and not name.endswith("/")
        }


def test_the_wheel_holds_what_operators_edit_just_as_the_checkout_has_it(wheel: Path) -> None:
    files = (path for path in (ROOT / "deploy").rglob("*") if path.is_file())
    assert deployed(wheel) == {path.relative_to(ROOT / "deploy").as_posix(): path.read_bytes() for path in files}
    assert {"local/run_docker.sh", "docker/Dockerfile", "envoy/envoy.yaml.j2"} <= deployed(wheel).keys()


def test_a_wheel_that_is_built_from_the_source_distribution_is_the_same(wheel: Path, tmp_path: Path) -> None:
    builder = make_environment(tmp_path / "builder", "build", "hatchling")
    build = run(
        [str(builder / "python"), "-m", "build", "--no-isolation", "--sdist", "-o", str(tmp_path), str(ROOT)], tmp_path
    )
    assert build.returncode == 0, build.stdout + build.stderr
    (source,) = tmp_path.glob("*.tar.gz")
    assert deployed(build_wheel(tmp_path / "again", source)) == deployed(wheel)


def test_the_files_are_found_where_only_the_wheel_is_installed(bare: Path, tmp_path: Path) -> None:
    code = f"from {PACKAGE} import deploy_file; print(deploy_file('local/run_uvicorn.sh'))"
    script = Path(run([str(bare / "python"), "-c", code], tmp_path).stdout.strip())
    assert script.is_relative_to(bare.parent)
    assert os.access(script, os.X_OK)


def test_the_wheel_says_what_it_is_and_asks_for_nothing_that_only_its_tests_need(wheel: Path) -> None:
    fields = metadata(wheel)
    required = {re.split(r"[^\w-]", line, maxsplit=1)[0].lower() for line in fields.get_all("Requires-Dist", [])}
    assert (fields["Name"], fields["License-Expression"]) == ("pytest-openenv-scale", "BSD-3-Clause")
    assert {"pytest", "aiohttp", "pyarrow", "starlette", "hypercorn"} <= required
    assert not required & {"hypothesis", "pytest-xdist", "ruff", "pyright"}


BROUGHT_BY_EXTRAS = ("plotnine", "matplotlib", "pandas", "scipy", "statsmodels", "numpy", "pytest_asyncio")
NEEDS_FIGURES = "figures need plotnine: pip install 'pytest-openenv-scale[figures]'"


def test_without_extras_nothing_is_installed_that_draws_or_acts_on_other_tests(bare: Path, tmp_path: Path) -> None:
    code = f"from importlib.util import find_spec; print([name for name in {BROUGHT_BY_EXTRAS} if find_spec(name)])"
    assert run([str(bare / "python"), "-c", code], tmp_path).stdout.strip() == "[]"


@pytest.mark.parametrize("ini", ["", 'filterwarnings = ["error"]\n'], ids=["as it is", "warnings as errors"])
def test_a_repository_is_left_as_it_was_and_can_measure(bare: Path, tmp_path: Path, ini: str) -> None:
    (tmp_path / "pyproject.toml").write_text(f"[tool.pytest.ini_options]\n{ini}")
    (tmp_path / "test_it.py").write_text(f"{THREE_LINES}\ndef test_other(): pass\n")
    plain = run([str(bare / "pytest"), "-m", "not scaling"], tmp_path)
    assert plain.returncode == 0, plain.stdout + plain.stderr
    assert "1 passed, 1 deselected in" in plain.stdout
    assert "warning" not in plain.stdout.lower()
    assert plain.stderr == ""

    with running_server() as (_, address):
        measure = [str(bare / "pytest"), "-m", "scaling", "--openenv-url", f"http://{address}", "--openenv-report"]
        refused = run([*measure, "figures"], tmp_path)
        assert (refused.returncode, refused.stderr) == (4, f"ERROR: --openenv-report: {NEEDS_FIGURES}\n\n")
        assert not (tmp_path / ".openenv-results").exists()
        measured = run([*measure, "html"], tmp_path)
    assert measured.returncode == 0, measured.stdout + measured.stderr
    assert "max batch ≥ 4" in measured.stdout
    assert "warning" not in measured.stdout.lower()
    (run_dir,) = (tmp_path / ".openenv-results").glob("2*")
    assert NEEDS_FIGURES in unescape((run_dir / "report.html").read_text())

    for command in (["report", "--formats", "figures"], ["history", "--output", "history.svg"]):
        completed = run([str(bare / "openenv-scale"), *command], tmp_path)
        assert (completed.returncode, completed.stdout) == (2, "")
        assert re.fullmatch(rf"openenv-scale {command[0]}: --\w+: {re.escape(NEEDS_FIGURES)}\n", completed.stderr)


def test_the_main_job_runs_where_nothing_but_the_wheel_is_installed(bare: Path, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(THREE_LINES)
    tested = run([str(bare / "pytest"), "-m", "scaling", "--openenv-target", "local:builtin"], tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "1 passed" in tested.stdout
    assert "max batch ≥ 4" in tested.stdout
    (run_dir,) = (tmp_path / ".openenv-results").glob("2*")
    assert pq.read_table(run_dir / "sessions.parquet").num_rows == 1 + 4
    assert "test_it_scales" in (run_dir / "report.md").read_text()

    reported = run([str(bare / "openenv-scale"), "report"], tmp_path)
    assert reported.returncode == 0, reported.stdout + reported.stderr
    assert "test_it_scales" in reported.stdout

    imported = run([str(bare / "python"), "-c", f"import {PACKAGE}; print({PACKAGE}.__file__)"], tmp_path)
    assert Path(imported.stdout.strip()).is_relative_to(bare.parent), imported.stderr


def test_the_first_command_of_the_readme_needs_nothing_but_what_it_installs(wheel: Path, tmp_path: Path) -> None:
    first = re.search(
        r"^    python3 -m venv .* && \.venv/bin/(pytest .*)$", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    assert first is not None
    # What pytest reads of a checkout when it runs there.
    for name in ("conftest.py", "pyproject.toml", "tox.ini"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__", "stored"))
    inside = make_environment(tmp_path / ".venv", wheel)
    program, *arguments = shlex.split(first[1])
    tested = run([str(inside / program), *arguments], tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "SLO met" in tested.stdout
    # Not by where the environment lies.
    assert "  test_scaling.py::test_scaling\n" in tested.stdout


def test_the_suite_judges_a_url_with_no_test_file_at_all(bare: Path, tmp_path: Path) -> None:
    with running_server() as (_, address):
        suite = ["--pyargs", f"{PACKAGE}.suite", "-m", "scaling or isolation", "--openenv-url", f"http://{address}"]
        grid = ["--openenv-batches", "1,4", "--openenv-waits", "0.1", "--openenv-slo", "max_batch>=4"]
        tested = run([str(bare / "pytest"), *suite, *grid], tmp_path)
        command = run([str(bare / "openenv-scale"), "run", f"http://{address}", *grid], tmp_path)
    for done in (tested, command):
        assert done.returncode == 0, done.stdout + done.stderr
        assert "SLO met: max_batch ≥ 4" in done.stdout
