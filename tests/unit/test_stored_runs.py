"""Runs that 0.1 stored are read, reported, compared, told as history and exported for ever."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from pytest_openenv_scale.__main__ import main
from pytest_openenv_scale.analysis.run import Run, load_run
from pytest_openenv_scale.config.limits import parse_reference
from pytest_openenv_scale.results.references import find_run

STORED = Path(__file__).parents[1] / "stored" / "0.1"

# What was measured: status, outcome, rows, and by wait and mode the max batch of every curve.
KINDS: dict[str, tuple[str, str, int, dict[tuple[float | None, str], int | None]]] = {
    "ws": ("complete", "met", 10, {(0.05, "ws"): 4}),
    "http": ("complete", "met", 10, {(0.05, "ws"): 4, (0.05, "http"): 4}),
    "refused": ("complete", "missed", 10, {(0.05, "ws"): 1, (0.1, "ws"): 1}),
    "checks": ("complete", "met", 0, {}),
    "failed": ("failed", "inconclusive", 6, {(0.05, "ws"): 1}),
    "interrupted": ("interrupted", "inconclusive", 1, {(1.0, "ws"): 1}),
    # Its process was killed: the manifest still says that it runs.
    "killed": ("interrupted", "inconclusive", 1, {(1.0, "ws"): 1}),
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results folder with every stored run in it."""
    return Path(shutil.copytree(STORED, tmp_path / ".openenv-results"))


@pytest.fixture
def runs(results: Path) -> dict[str, Run]:
    """The runs by the note they were made with."""
    loaded = [load_run(path) for path in sorted(results.iterdir())]
    return {str(run.record.note): run for run in loaded}


@pytest.mark.parametrize("kind", KINDS)
def test_a_stored_run_says_what_it_said(runs, kind):
    run = runs[kind]
    curves = [curve for sweep in run.sweeps for curve in sweep.curves]
    max_batches = {(view.curve.wait, view.curve.mode): view.verdict.max_batch for view in curves}
    rows = run.table().num_rows if curves else 0
    assert (run.status, run.outcome.value, rows, max_batches) == KINDS[kind]
    assert run.problems == ()


def test_the_limit_that_refused_is_still_named(runs):
    (sweep,) = runs["refused"].sweeps
    for view in sweep.curves:
        (refused,) = view.verdict.refused
        assert (refused.cause, refused.count, refused.batch) == ("capacity", 2, 4)


def test_checks_are_as_they_were(runs):
    outcomes = {record.test: record.result.outcome.value for record in runs["checks"].checks}
    isolation = ("interleaved", "under_load", "reset_twice", "sequential")
    # A server for six sessions was asked for four at most.
    capacity = ("refusal", "others_go_on", "freed_slot")
    assert outcomes == {
        **{f"test_isolation.py::test_isolation[{name}]": "met" for name in isolation},
        **{f"test_capacity.py::test_capacity[{name}]": "skipped" for name in capacity},
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_stored_run_is_reported(runs, kind, tmp_path):
    # The folder without the reports of the day.
    for name in ("report.md", "report.json"):
        (runs[kind].path / name).unlink(missing_ok=True)
    assert main(["report", str(runs[kind].path), "--formats", "md,log"]) == 0
    report = json.loads((runs[kind].path / "report.json").read_text())
    assert (report["run_id"], report["status"]) == (runs[kind].run_id, KINDS[kind][0])
    assert len(report["sweeps"]) == len(runs[kind].sweeps)
    assert runs[kind].run_id in (runs[kind].path / "report.md").read_text()


def test_all_of_them_are_one_study(results, tmp_path):
    assert main(["report", "--all", "--results", str(results), "--output", str(tmp_path / "study")]) == 0
    assert (tmp_path / "study" / "report.md").exists()


def test_a_stored_run_is_a_baseline(runs, results, capsys):
    assert find_run(parse_reference("latest", results), [results]) == runs["refused"].path
    copy = shutil.copytree(runs["ws"].path, results / "20270101T000000.000Z-00000000")
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "run_id": copy.name}))
    compared = ["compare", runs["ws"].run_id, copy.name, "--results", str(results), "--fail-on", "max_batch:-10%"]
    assert main(compared) == 0
    assert "no regression" in capsys.readouterr().out


def test_stored_runs_are_a_history(results, capsys):
    assert main(["history", "--results", str(results)]) == 0
    assert "test_ws" in capsys.readouterr().out


@pytest.mark.parametrize("kind", [kind for kind, (*_, curves) in KINDS.items() if curves])
def test_a_stored_run_is_exported(runs, kind, tmp_path):
    assert main(["export", str(runs[kind].path), "--output", str(tmp_path / "older")]) == 0
    lines = (tmp_path / "older" / "raw.jsonl").read_text().splitlines()
    assert len(lines) == KINDS[kind][2]
    with (tmp_path / "older" / "summary.csv").open() as file:
        assert sum(int(row["num_requests"]) for row in csv.DictReader(file)) == len(lines)
