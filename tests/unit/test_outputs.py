"""What `--openenv-outputs` appends, of runs that 0.1 stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pytest_openenv_scale.analysis.run import load_run
from pytest_openenv_scale.reporting import append_outputs

STORED = Path(__file__).parents[1] / "stored" / "0.1"


def lines_of(run_id: str, file: Path, *, kept: bool = True) -> list[str]:
    run = load_run(STORED / run_id)
    append_outputs(replace(run, record=replace(run.record, kept=kept)), file)
    return file.read_text().splitlines()


def test_verdict_max_batch_and_directory_are_appended(tmp_path: Path) -> None:
    file = tmp_path / "new" / "outputs"
    assert lines_of("20261130T010336.104Z-d9b27c04", file) == [
        "openenv_verdict=met",
        "openenv_max_batch=4",
        f"openenv_run={STORED / '20261130T010336.104Z-d9b27c04'}",
    ]
    smallest = lines_of("20261130T010346.256Z-52be611e", file)
    assert smallest[3:5] == ["openenv_verdict=missed", "openenv_max_batch=1"]


def test_what_is_not_known_is_empty(tmp_path: Path) -> None:
    checks_only = lines_of("20261130T010351.352Z-1e66365e", tmp_path / "outputs", kept=False)
    assert checks_only == ["openenv_verdict=met", "openenv_max_batch=", "openenv_run="]
