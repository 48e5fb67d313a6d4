"""`openenv-scale gc` removes what killed runs left behind, and says what it could not look at."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_openenv_scale.__main__ import main
from pytest_openenv_scale.core import errors
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.files import LifetimeLock
from pytest_openenv_scale.results.run_directory import WRITER_LOCK
from pytest_openenv_scale.targets import gc


class Fakes:
    """Collectors that remember whether they were to look only."""

    def __init__(self, **found: list[str] | TargetError) -> None:
        self.asked: list[tuple[str, bool]] = []
        self.collectors: dict[str, gc.Collector] = {kind: self._collector(kind, what) for kind, what in found.items()}

    def _collector(self, kind: str, found: list[str] | TargetError) -> Callable[[bool], list[str]]:
        def collect(dry_run: bool) -> list[str]:
            self.asked.append((kind, dry_run))
            if isinstance(found, TargetError):
                raise found
            return found

        return collect


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fakes]:
    def _install(**found: list[str] | TargetError) -> Fakes:
        fakes = Fakes(**found)
        monkeypatch.setattr(gc, "COLLECTORS", fakes.collectors)
        return fakes

    return _install


NO_ENGINE = TargetError("docker: no engine answers\nmore about that")


def test_each_leftover_is_one_line(install: Callable[..., Fakes], capsys: pytest.CaptureFixture[str]) -> None:
    fakes = install(docker=["container a", "container b"], folders=["temporary results c"])
    assert main(["gc"]) == 0
    assert capsys.readouterr().out == "removed container a\nremoved container b\nremoved temporary results c\n"
    assert fakes.asked == [("docker", False), ("folders", False)]


def test_nothing_left_behind_is_said(install: Callable[..., Fakes], capsys: pytest.CaptureFixture[str]) -> None:
    install(docker=[])
    assert main(["gc"]) == 0
    assert capsys.readouterr().out == "nothing left behind\n"


def test_a_dry_run_only_looks(install: Callable[..., Fakes], capsys: pytest.CaptureFixture[str]) -> None:
    fakes = install(docker=["container a"])
    assert main(["gc", "--dry-run"]) == 0
    assert capsys.readouterr().out == "would remove container a\n"
    assert fakes.asked == [("docker", True)]


def test_a_missing_engine_is_a_line_and_no_failure(
    install: Callable[..., Fakes], capsys: pytest.CaptureFixture[str]
) -> None:
    install(docker=NO_ENGINE, folders=["temporary results c"])
    assert main(["gc"]) == 0
    assert capsys.readouterr().out == "removed temporary results c\ndocker: not looked for: no engine answers\n"


def test_a_missing_engine_that_was_asked_for_by_name_is_a_failure(
    install: Callable[..., Fakes], capsys: pytest.CaptureFixture[str]
) -> None:
    fakes = install(docker=NO_ENGINE, folders=["temporary results c"])
    assert main(["gc", "docker"]) == 2
    assert capsys.readouterr() == ("", "openenv-scale gc: docker: no engine answers\n")
    assert fakes.asked == [("docker", False)]


def test_what_stays_is_told_beside_what_went_and_is_a_failure(
    install: Callable[..., Fakes], capsys: pytest.CaptureFixture[str]
) -> None:
    install(spaces=errors.PartlyCollectedError(["Space a"], ["spaces: b: no rights"]))
    assert main(["gc"]) == 2
    assert capsys.readouterr() == ("removed Space a\n", "openenv-scale gc: spaces: b: no rights\n")


def test_an_unknown_kind_is_refused_with_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gc", "dokcer"]) == 2
    assert "there is no kind 'dokcer'; did you mean 'docker'?" in capsys.readouterr().err


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def run_folder(temporary: Path, name: str, *, age_s: float = 3600) -> Path:
    """Make what a run with `--openenv-results none` has in the temporary folder; return its lock."""
    lock = temporary / name / "20261121T101530.042Z-3fa9c0de" / WRITER_LOCK
    lock.parent.mkdir(parents=True)
    lock.touch()
    status = lock.stat()
    os.utime(lock, (status.st_atime - age_s, status.st_mtime - age_s))
    return lock


def test_temporary_results_of_a_dead_run_are_removed_and_those_of_a_living_one_stay(temporary: Path) -> None:
    run_folder(temporary, "openenv-scale-dead")
    living = LifetimeLock(run_folder(temporary, "openenv-scale-living"))
    run_folder(temporary, "openenv-scale-new", age_s=0)
    run_folder(temporary, "somebody-elses")
    (temporary / "openenv-scale-0.lock").touch()
    (temporary / "openenv-scale-empty").mkdir()
    before = {path.name for path in temporary.iterdir()}
    dead = f"temporary results {temporary / 'openenv-scale-dead'}"
    try:
        assert gc.collect(["folders"], dry_run=True).lines == (dead,)
        assert {path.name for path in temporary.iterdir()} == before
        assert gc.collect(["folders"]).lines == (dead,)
        assert gc.collect(["folders"]).lines == ()
    finally:
        living.release()
    assert {path.name for path in temporary.iterdir()} == before - {"openenv-scale-dead"}
