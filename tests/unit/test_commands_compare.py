"""`openenv-scale compare` and `history`, as a person or a CI job meets them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cells import a_cell, a_failure, a_meta, a_row
from report_samples import a_sweep, measured

from goldens import NOW
from pytest_openenv_scale.__main__ import main
from pytest_openenv_scale.config.figures import FIGURE_FORMATS, FigureFiles
from pytest_openenv_scale.reporting.figures import write
from pytest_openenv_scale.results.run_directory import RunDirectory


def a_stored_run(results: Path, run_id: str, *, slower=0.0, refused=0, test=None, waits=(1.0,)) -> Path:
    """A run of batches 4 and 8 in 2 repetitions; `refused` of 8 sessions find the server full."""
    directory = RunDirectory.create(results, run_id)
    directory.begin(command=["pytest"])
    cells = [replace(a_cell(batch, wait=wait), test=test or a_cell().test) for wait in waits for batch in (4, 8)]
    curves = tuple(replace(cells[at * 2].curve, batches=(4, 8)) for at in range(len(waits)))
    record = replace(a_sweep(measured(4)).record, reps=2, test=cells[0].test, target=cells[0].target)
    directory.begin_sweep(replace(record, curves=curves, slos=record.slos * len(curves)))
    for cell in cells:
        for repetition in (1, 2):
            meta = replace(a_meta(cell, repetition=repetition), run_id=run_id)
            full = refused if cell.batch == 8 else 0
            rows = [a_failure(n) if n < full else a_row(n, step=1.0 + slower + n / 1e4) for n in range(cell.batch)]
            directory.write_cell(rows, meta)
    directory.finish_sweep("sweep", "complete")
    directory.finish("complete")
    directory.close()
    return directory.path


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path / ".openenv-results"


def test_the_same_figures_again_exit_0(golden, results, capsys):
    a_stored_run(results, "run-1")
    a_stored_run(results, "run-2")
    assert main(["compare", "run-1", "latest", "--fail-on", "max_batch:-10%,total_p99:+15%"]) == 0
    out = capsys.readouterr().out
    golden(out, masks=NOW)


def test_a_regression_exits_1_and_names_the_effect(results, capsys):
    a_stored_run(results, "run-1")
    a_stored_run(results, "run-2", slower=0.5)
    assert main(["compare", "run-1", "run-2", "--fail-on", "total_p99:+15%", "--fail-on", "max_batch:-1"]) == 1
    out = capsys.readouterr().out
    assert "δ +1.00 large" in out
    assert "✗ regressed: total_p99 at batch 4" in out


def test_sessions_that_were_held_and_are_refused_now_exit_1(results, capsys):
    a_stored_run(results, "run-1")
    a_stored_run(results, "run-2", refused=2)
    assert main(["compare", "run-1", "run-2", "--fail-on", "max_batch:-10%"]) == 1
    assert "regressed: max_batch ≥ 8 → 4, allowed 8" in capsys.readouterr().out


def test_without_fail_on_nothing_is_judged(golden, results, capsys):
    a_stored_run(results, "run-1")
    a_stored_run(results, "run-2", refused=2)
    assert main(["compare", "run-1", "run-2"]) == 0
    golden(capsys.readouterr().out, masks=NOW)


def test_a_missing_curve_exits_3_unless_it_is_allowed(golden, results, capsys):
    a_stored_run(results, "run-1", waits=(1.0, 2.0))
    a_stored_run(results, "run-2")
    assert main(["compare", "run-1", "run-2"]) == 3
    golden(capsys.readouterr().out, masks=NOW)
    assert main(["compare", "run-1", "run-2", "--allow-missing"]) == 0


def test_a_renamed_test_exits_3_and_is_guessed(golden, results, capsys):
    a_stored_run(results, "run-1")
    a_stored_run(results, "run-2", test="test_scale.py::test_it_all")
    assert main(["compare", "run-1", "run-2", "--fail-on", "max_batch:-10%"]) == 3
    golden(capsys.readouterr().out, masks=NOW)


def test_json_says_everything(results, capsys):
    a_stored_run(results, "run-1")
    a_stored_run(results, "run-2", slower=0.5)
    assert main(["compare", "run-1", "run-2", "--fail-on", "total_p99:+15%", "--format", "json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["format"], report["outcome"], report["fail_on"]) == (1, "regressed", ["total_p99:+15%"])
    assert report["baseline"]["run_id"] == "run-1"
    changes = {(each["metric"], each["batch"]): each for each in report["curves"][0]["changes"]}
    change = changes["total_p99", 8]
    assert (change["status"], change["effect"], change["fail_on"]) == ("regressed", 1.0, "total_p99:+15%")
    assert change["baseline"]["value"] == pytest.approx(1.03069, abs=1e-4)
    assert change["allowed"] == pytest.approx(change["baseline"]["value"] * 1.15)


def test_markdown_begins_with_the_verdict(golden, results, capsys):
    a_stored_run(results, "run-1")
    a_stored_run(results, "run-2")
    assert main(["compare", "run-1", "run-2", "--format", "md"]) == 0
    out = capsys.readouterr().out
    golden(out.splitlines()[0])
    assert "<details><summary>Every figure</summary>" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere", "run-1"],
        ["run-1", "run-1"],
        ["run-1", "latest", "--fail-on", "max_batch:+10%"],
        ["latest", "x", "--results", "empty"],
    ],
)
def test_bad_input_exits_2_with_one_line(golden, results, capsys, arguments):
    a_stored_run(results, "run-1")
    assert main(["compare", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    golden(line)


@pytest.mark.parametrize(
    "name",
    [
        ".openenv-results",
        ".openenv-results/run-1/report.json",
    ],
)
def test_a_path_that_is_no_run_says_what_it_is(golden, results, capsys, name):
    (a_stored_run(results, "run-1") / "report.json").touch()
    assert main(["compare", "run-1", name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    golden(line)


def test_history_shows_every_run_and_draws_them(golden, results, tmp_path, capsys):
    a_stored_run(results, "run-1")
    a_stored_run(results, "run-2", refused=2)
    (results / "run-3").mkdir()
    (results / "run-3" / "manifest.json").write_text("damaged")
    assert main(["history"]) == 2
    out, err = capsys.readouterr()
    golden(out, masks=NOW)
    assert out.index("run-1") < out.index("run-2")
    golden(err)
    assert main(["history", "--output", "history.svg"]) == 2


def test_stored_runs_are_listed_with_the_newest_first(golden, results, monkeypatch, capsys):
    a_stored_run(results.with_name("openenv-results"), "20260101T000000.000Z-0001", refused=2)
    a_stored_run(results, "20260102T000000.000Z-0002")
    (results / "20260103T000000.000Z-0003").mkdir()
    (results / "20260103T000000.000Z-0003" / "manifest.json").write_text("damaged")
    assert main(["list"]) == 0
    out, err = capsys.readouterr()
    golden(out, masks=NOW)
    golden(err)
    monkeypatch.setenv("COLUMNS", "70")
    assert main(["list", "--last", "2"]) == 0
    golden(capsys.readouterr().out, masks=NOW)
    assert main(["list", "--json", "--last", "2"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert (listed["format"], listed["older"]) == (1, 1)
    (run,), (damaged,) = listed["runs"], listed["damaged"]
    assert {name: run[name] for name in ("run_id", "status", "outcome", "note")} == {
        "run_id": "20260102T000000.000Z-0002",
        "status": "complete",
        "outcome": "met",
        "note": None,
    }
    assert [(curve["mode"], curve["max_batch"], curve["is_open"]) for curve in run["curves"]] == [("ws", 8, True)]
    assert damaged["path"].endswith("20260103T000000.000Z-0003")


def test_a_list_without_runs_says_where_it_looked(golden, results, capsys):
    assert main(["list"]) == 0
    assert main(["list", "--results", "elsewhere"]) == 2
    assert main(["list", "--last", "0"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    golden(err)


def test_a_figure_of_the_history_without_its_extra_is_refused_before_a_run_is_read(
    golden, results, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "plotnine", None)
    a_stored_run(results, "run-1")
    assert main(["history", "--output", "history.svg"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    golden(err)
    assert main(["history"]) == 0


def test_history_draws_a_figure(results, tmp_path, capsys, monkeypatch):
    pictures = []
    draw_all = write.draw_all

    def draw_once(contents, files):
        pictures.extend([] if pictures else draw_all(contents, FigureFiles(FIGURE_FORMATS, files.dpi)))
        return pictures

    monkeypatch.setattr(write, "draw_all", draw_once)
    a_stored_run(results, "run-1")
    a_stored_run(results, "run-2", refused=2)
    for name, begins in (("history.svg", b"<?xml"), ("history.png", b"\x89PNG"), ("history.pdf", b"%PDF")):
        assert main(["history", "--output", f"figures/{name}"]) == 0
        assert (tmp_path / "figures" / name).read_bytes().startswith(begins)
        assert f"written: figures/{name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--metric", "max_bach"],
        ["--output", "history.jpg"],
        ["--output", "history.pdf", "--dpi", "300"],
        ["--output", "history.png", "--dpi", "many"],
        ["--last", "0"],
        ["--batch", "-4"],
        ["--results", "empty"],
        ["--test", "nothing"],
        ["--infrastructure", "local-uvicor"],
    ],
)
def test_history_refuses_bad_input_in_one_line(golden, results, capsys, arguments):
    a_stored_run(results, "run-1")
    assert main(["history", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    golden(line)
