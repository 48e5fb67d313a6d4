"""The wheel in a bare environment outside the checkout: what somebody gets who installs the project."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pytest_run import environ
from server_process import running_server

pytestmark = pytest.mark.real

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "pytest_openenv_scale"
INSTALL_TIMEOUT_S = 600
# There is no pip, or no index that answers; a requirement that does not exist is our mistake and no excuse.
CANNOT_INSTALL = re.compile(
    r"No module named pip|Retrying \(Retry|NewConnectionError|ConnectTimeout|ReadTimeout|NameResolutionError|ProxyError"
)

THREE_LINES = """\
import pytest
@pytest.mark.scaling(batches="1,4", waits=[0.1])
def test_it_scales(scaling): scaling.run()
"""


def pip(*arguments: object) -> None:
    """Run pip; the test is skipped where it cannot reach a package index."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    done = run(command, ROOT.parent, INSTALL_TIMEOUT_S)
    if done.returncode and CANNOT_INSTALL.search(done.stdout + done.stderr):
        pytest.skip(f"pip cannot install anything here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stdout + done.stderr


def run(command: list[str], folder: Path, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    alone = {name: value for name, value in environ().items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return subprocess.run(
        command,
        cwd=folder,
        env=alone,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that holds the wheel and what it asks for, and nothing else."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    pip("--python", folder / "bin" / "python", "install", "--quiet", "--no-compile", wheel)
    return folder / "bin"


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
    assert f"{info}/licenses/LICENSE" in names
    assert not [name for name in names if re.search(r"(^|/)(tests|conftest\.py|__pycache__)(/|$)", name)]


def test_the_wheel_says_what_it_is_and_asks_for_nothing_that_only_its_tests_need(wheel: Path) -> None:
    told = metadata(wheel)
    required = {re.split(r"[^\w-]", line, maxsplit=1)[0].lower() for line in told.get_all("Requires-Dist", [])}
    assert (told["Name"], told["License-Expression"]) == ("pytest-openenv-scale", "BSD-3-Clause")
    assert {"pytest", "aiohttp", "pyarrow", "starlette", "hypercorn"} <= required
    assert not required & {"hypothesis", "pytest-xdist", "ruff", "pyright"}


def test_the_main_job_runs_where_nothing_but_the_wheel_is_installed(bare: Path, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(THREE_LINES)
    tested = run([str(bare / "pytest"), "-m", "scaling"], tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "1 passed" in tested.stdout
    assert "max batch ≥ 4" in tested.stdout
    (run_dir,) = (tmp_path / "openenv-results").iterdir()
    assert pq.read_table(run_dir / "sessions.parquet").num_rows == 1 + 4
    assert "test_it_scales" in (run_dir / "report.md").read_text()

    reported = run([str(bare / "openenv-scale"), "report"], tmp_path)
    assert reported.returncode == 0, reported.stdout + reported.stderr
    assert "test_it_scales" in reported.stdout

    imported = run([str(bare / "python"), "-c", f"import {PACKAGE}; print({PACKAGE}.__file__)"], tmp_path)
    assert Path(imported.stdout.strip()).is_relative_to(bare.parent), imported.stderr


def test_the_suite_judges_a_url_with_no_test_file_at_all(bare: Path, tmp_path: Path) -> None:
    with running_server() as (_, address):
        suite = ["--pyargs", f"{PACKAGE}.suite", "--openenv-url", f"http://{address}"]
        grid = ["--openenv-batches", "1,4", "--openenv-waits", "0.1", "--openenv-slo", "max_batch>=4"]
        tested = run([str(bare / "pytest"), *suite, *grid], tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "SLO met: max_batch ≥ 4" in tested.stdout
