"""What would be pushed: which files of a run, and what is refused before the Hub is asked."""

from __future__ import annotations

import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from cells import a_cell, a_meta, a_row, summary_of
from report_samples import a_sweep
from test_main import a_stored_run

from goldens import Golden
from pytest_openenv_scale.__main__ import main
from pytest_openenv_scale.analysis.run import load_run
from pytest_openenv_scale.core.errors import RunError
from pytest_openenv_scale.core.files import LifetimeLock
from pytest_openenv_scale.hub.dataset import SCHEMA, cells_parquet, cells_table, run_files, runs_in_dataset
from pytest_openenv_scale.hub.transfer import plan_push
from pytest_openenv_scale.reporting import write_reports
from pytest_openenv_scale.reporting.html import page
from pytest_openenv_scale.results.manifest import read_manifest
from pytest_openenv_scale.results.outcome import Sample, WarmUp
from pytest_openenv_scale.results.run_directory import RunDirectory

RUN_ID = "20261121T120000.000Z-3fa9"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return a_stored_run(tmp_path / ".openenv-results")


def test_a_run_is_pushed_without_locks_links_and_what_is_unfinished(run: Path) -> None:
    (run / "figures").mkdir()
    (run / "figures" / "a.png").write_bytes(b"\x89PNG")
    (run / "sessions.parquet" / ".half.tmp").write_bytes(b"")
    (run / "sessions.parquet" / ".of-a-cell-that-was-cut-off.arrows").write_bytes(b"rows")
    (run / "sessions.parquet" / ".hidden").mkdir()
    (run / "sessions.parquet" / ".hidden" / ".elsewhere.arrows").write_bytes(b"")
    (run / "secret").symlink_to("/etc/passwd")
    files = [file.as_posix() for file in run_files(run)]
    assert files[:2] == ["figures/a.png", "manifest.json"]
    assert files[2] == "sessions.parquet/.of-a-cell-that-was-cut-off.arrows"
    assert [Path(file).suffix for file in files[3:]] == [".parquet", ".parquet"]
    in_dataset = [f"runs/{RUN_ID}/{file}" for file in (*files, "sessions.parquet/.half.tmp", "../.x.arrows")]
    assert runs_in_dataset(in_dataset) == {RUN_ID: files}


def test_the_cells_are_a_row_per_batch_and_repetition(run: Path, tmp_path: Path) -> None:
    cells_parquet(load_run(run), tmp_path / "cells.parquet")
    rows = pq.read_table(tmp_path / "cells.parquet").to_pylist()
    assert [(row["batch_size"], row["successful"], row["failed"], row["passed"]) for row in rows] == [
        *((4, 4, 0, True), (8, 6, 2, False)),
    ]
    assert {row["run_id"] for row in rows} == {RUN_ID}
    assert {row["max_batch"] for row in rows} == {4}
    assert all(row["total_p99"] > 0 for row in rows)


def test_the_cells_tell_what_of_a_steady_state_was_judged(tmp_path: Path) -> None:
    cell = a_cell(2, arrival="steady=20,ramp=5")
    rows = [a_row(n, slot=n % 2, due_s=6.0, reset_done_s=0.1, closed_s=19.0) for n in range(3)]
    meta = a_meta(cell)
    with RunDirectory.create(tmp_path) as run:
        run.begin()
        run.begin_sweep(replace(a_sweep(summary_of(rows, cell)).record, sweep_id=meta.sweep_id, curves=(cell.curve,)))
        run.write_cell([*rows, a_row(4, slot=0, judged=False)], meta)
    (row,) = cells_table(load_run(run.path)).to_pylist()
    assert (row["asked"], row["unjudged"], row["not_started"]) == (3, 1, 0)
    assert row["open_least"] is not None


def test_a_run_that_measured_nothing_has_an_empty_table_of_the_same_columns(tmp_path: Path) -> None:
    run = a_stored_run(tmp_path, finished=False)
    for part in (run / "sessions.parquet").glob("*.parquet"):
        part.unlink()
    table = cells_table(load_run(run))
    assert (table.num_rows, table.schema) == (0, SCHEMA)


def test_an_interrupted_run_may_be_pushed_and_one_that_goes_on_may_not(golden: Golden, tmp_path: Path) -> None:
    run = a_stored_run(tmp_path, finished=False)
    (planned,) = plan_push([run])
    assert planned.run.status == "interrupted"
    writer = LifetimeLock(run / ".writer.lock")
    with pytest.raises(RunError) as caught:
        plan_push([run])
    golden(caught.value)
    writer.release()


def test_a_folder_of_another_name_would_come_back_as_another_run(golden: Golden, run: Path) -> None:
    with pytest.raises(RunError) as caught:
        plan_push([run.rename(run.with_name("mine"))])
    golden(caught.value)


def test_only_whole_runs_are_found_in_a_dataset() -> None:
    whole_run_files = ["runs/a/manifest.json", "runs/a/sessions.parquet/x.parquet"]
    strange = ["runs/b/report.md", "runs/../manifest.json", "runs/a/../../x", "runs/a/.git/config", "manifest.json"]
    assert runs_in_dataset([*whole_run_files, *strange]) == {"a": ["manifest.json", "sessions.parquet/x.parquet"]}


def test_a_dry_run_lists_files_shows_the_card_and_opens_no_network(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("the network was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert main(["push", RUN_ID, "alice/runs", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("would push to alice/runs:\n")
    for file in run_files(run):
        assert f"  runs/{RUN_ID}/{file}\n" in out
    assert f"  2 rows  cells/{RUN_ID}.parquet\n" in out
    assert "\n---\npretty_name: runs\n" in out
    assert "### 2026-11-21" in out or "### 20" in out


def test_a_dry_run_does_not_even_import_the_client(run: Path) -> None:
    code = (
        "import sys; from pytest_openenv_scale.__main__ import main; "
        f"main(['push', {RUN_ID!r}, 'a/b', '--dry-run']); print('huggingface_hub' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.endswith("False\n")


@pytest.mark.parametrize("arguments", [["nothing", "alice/runs"], [RUN_ID, "runs"]])
def test_bad_input_is_one_line(
    golden: Golden, run: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    golden(err)


def test_a_missing_client_is_told_with_what_to_install(
    golden: Golden, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for arguments in (["push", RUN_ID, "a/b"], ["pull", "a/b"], ["deploy", "spaces", "a/b"]):
        assert main(arguments) == 2
        golden(capsys.readouterr().err)


def test_what_sessions_said_stays_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "figure_svgs", lambda study: {})  # They show nothing of it, and take seconds to draw.
    run = a_stored_run(tmp_path)
    (record,) = read_manifest(run).sweeps
    warm_up = WarmUp("ws", steps=1, made_action=True, sample=Sample('{"word": "hunter2"}', '{"says": "hunter2"}'))
    RunDirectory.open(run).replace_sweep(replace(record, warm_ups=(warm_up,)))
    write_reports(load_run(run), formats=("md", "html"))
    reports = [run / name for name in ("report.json", "report.md", "report.html")]
    assert all("hunter2" in report.read_text() for report in reports)

    (planned,) = plan_push([run])
    planned = planned.without_samples(tmp_path / "pushed")
    texts = {
        file.name: source.read_bytes() for file, source in zip(planned.files, planned.sources.values(), strict=True)
    }
    assert {report.name for report in reports} < texts.keys()
    assert not any(b"hunter2" in text for text in texts.values())
    assert planned.source(Path("manifest.json")) == run / "manifest.json"
    assert load_run(run).record.sweeps[0].warm_ups == (warm_up,)


def test_samples_that_cannot_be_read_are_none(tmp_path: Path) -> None:
    run = a_stored_run(tmp_path)
    (run / "samples.json").write_text('{"sweeps": 3')
    assert load_run(run).problems == ()
