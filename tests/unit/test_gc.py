"""`openenv-scale gc` removes what killed runs left behind, and says what it could not look at."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from goldens import Golden
from pytest_openenv_scale.__main__ import main
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.files import LifetimeLock
from pytest_openenv_scale.results.run_directory import WRITER_LOCK
from pytest_openenv_scale.targets import gc
from pytest_openenv_scale.targets.common.leftovers import Leftover


class Fakes:
    """Finders of leftovers that remember what was looked for and removed."""

    def __init__(self, **kinds: list[str] | TargetError) -> None:
        self.looked: list[str] = []
        self.removed: list[str] = []
        self.refused: list[str] = []
        self.finders = {kind: partial(self._find, kind, leftovers) for kind, leftovers in kinds.items()}

    def _find(self, kind: str, leftovers: list[str] | TargetError) -> Iterator[Leftover]:
        self.looked.append(kind)
        if isinstance(leftovers, TargetError):
            raise leftovers
        for line in leftovers:
            yield Leftover(line, partial(self._remove, line))

    def _remove(self, line: str) -> None:
        if line in self.refused:
            raise TargetError(f"target {line}: no rights")
        self.removed.append(line)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fakes]:
    def _install(**kinds: list[str] | TargetError) -> Fakes:
        fakes = Fakes(**kinds)
        monkeypatch.setattr(gc, "FINDERS", fakes.finders)
        return fakes

    return _install


NO_ENGINE = TargetError("docker: no engine answers\nmore about that")


def test_each_leftover_is_one_line(
    golden: Golden, install: Callable[..., Fakes], capsys: pytest.CaptureFixture[str]
) -> None:
    fakes = install(docker=["container a", "container b"], folders=["temporary results c"])
    assert main(["gc"]) == 0
    golden(capsys.readouterr().out)
    assert fakes.removed == ["container a", "container b", "temporary results c"]


def test_nothing_left_behind_is_said(install: Callable[..., Fakes], capsys: pytest.CaptureFixture[str]) -> None:
    install(docker=[])
    assert main(["gc"]) == 0
    assert capsys.readouterr().out == "nothing left behind\n"


def test_a_dry_run_only_looks(install: Callable[..., Fakes], capsys: pytest.CaptureFixture[str]) -> None:
    fakes = install(docker=["container a"])
    assert main(["gc", "--dry-run"]) == 0
    assert capsys.readouterr().out == "would remove container a\n"
    assert (fakes.looked, fakes.removed) == (["docker"], [])


def test_a_missing_engine_is_a_line_and_no_failure(
    golden: Golden, install: Callable[..., Fakes], capsys: pytest.CaptureFixture[str]
) -> None:
    install(docker=NO_ENGINE, folders=["temporary results c"])
    assert main(["gc"]) == 0
    golden(capsys.readouterr().out)


def test_a_missing_engine_that_was_asked_for_by_name_is_a_failure(
    golden: Golden, install: Callable[..., Fakes], capsys: pytest.CaptureFixture[str]
) -> None:
    fakes = install(docker=NO_ENGINE, folders=["temporary results c"])
    assert main(["gc", "docker"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    golden(err)
    assert fakes.looked == ["docker"]


def test_what_stays_is_told_beside_what_went_and_is_a_failure(
    golden: Golden, install: Callable[..., Fakes], capsys: pytest.CaptureFixture[str]
) -> None:
    fakes = install(docker=["container a", "container b"], folders=["results c"])
    fakes.refused.append("container a")
    assert main(["gc"]) == 2
    out, err = capsys.readouterr()
    golden(out)
    golden(err)


def test_what_is_gone_already_is_not_told_and_what_cannot_be_removed_here_is_a_failure(
    golden: Golden, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leftovers = [Leftover("Space a", lambda: False), Leftover("spaces: something is left elsewhere", None)]
    monkeypatch.setattr(gc, "FINDERS", {"spaces": lambda: leftovers})
    assert main(["gc"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    golden(err)


def test_an_unknown_kind_is_refused_with_the_nearest_one(golden: Golden, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gc", "dokcer"]) == 2
    golden(capsys.readouterr().err)


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
