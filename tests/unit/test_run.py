"""The run directory, written and read."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cells import NOON, a_cell, a_curve, a_failure, a_meta, a_row, an_slo

from pytest_openenv_scale.analysis.run import load_run
from pytest_openenv_scale.core.errors import RunError
from pytest_openenv_scale.results.environment import fingerprint
from pytest_openenv_scale.results.location import new_run_id
from pytest_openenv_scale.results.manifest import SweepRecord, git_state, read_manifest
from pytest_openenv_scale.results.outcome import Outcome
from pytest_openenv_scale.results.run_directory import RunDirectory


def a_record(*batches, slo=None, **fields) -> SweepRecord:
    curve = a_curve(*(batches or (2, 4)))
    usual = {"steps": 1, "arrival": "hold", "reps": 1, "timeout_s": 120.0, "started_at": NOON}
    return SweepRecord(
        "sweep", curve.test, curve.target, curve.infrastructure, (curve,), (slo or an_slo(),), **{**usual, **fields}
    )


def measure(run, record, batch, *, failed=0, repetition=1, **meta):
    described = a_meta(a_cell(batch), repetition=repetition, **meta)
    described = replace(described, run_id=run.run_id, sweep_id=record.sweep_id)
    rows = [a_row(number) for number in range(batch - failed)]
    rows += [a_failure(number) for number in range(batch - failed, batch)]
    return run.write_cell(rows, described).path


@pytest.fixture
def run(tmp_path):
    with RunDirectory.create(tmp_path / "results") as run:
        run.begin(command=["pytest"], note="a note")
        yield run


# --- ids


def test_run_ids_sort_by_time_and_are_unique():
    ids = [new_run_id() for _ in range(200)]
    assert len(set(ids)) == 200
    assert [run_id[:19] for run_id in ids] == sorted(run_id[:19] for run_id in ids)
    assert re.fullmatch(r"\d{8}T\d{6}\.\d{3}Z-[0-9a-f]{8}", ids[0])


# --- what is written is read


def test_nothing_ends_before_it_began_though_the_clock_was_set_back(run):
    ahead = datetime.now(UTC) + timedelta(hours=1)
    record = run.begin_sweep(a_record(started_at=ahead))
    run.write_manifest(replace(read_manifest(run.path), started_at=ahead))
    run.finish_sweep(record.sweep_id, "complete", Outcome.MET)
    run.finish("complete")
    manifest = read_manifest(run.path)
    assert (manifest.finished_at, manifest.sweeps[0].finished_at) == (ahead, ahead)


def test_a_run_is_rebuilt_from_its_directory_alone(run):
    record = run.begin_sweep(a_record(slo=an_slo(max_batch=4)))
    measure(run, record, 2)
    measure(run, record, 4, failed=3)
    run.finish_sweep(record.sweep_id, "complete", Outcome.MISSED)
    run.finish("complete")
    loaded = load_run(run.path)
    assert (loaded.run_id, loaded.status, loaded.outcome, loaded.problems) == (
        run.run_id,
        "complete",
        Outcome.MISSED,
        (),
    )
    (sweep,) = loaded.sweeps
    assert (sweep.test, sweep.infrastructure, sweep.outcome) == (record.test, "local-uvicorn", Outcome.MISSED)
    assert (sweep.record.status, sweep.record.outcome) == ("complete", Outcome.MISSED)
    (curve,) = sweep.curves
    assert (curve.verdict.max_batch, [summary.batch for summary in curve.summaries]) == (2, [2, 4])
    assert loaded.table().num_rows == 6


def test_the_manifest_keeps_what_the_run_was_asked(run):
    run.begin_sweep(a_record(notes=("built-in",), hardware="cpu-basic"))
    manifest = load_run(run.path).manifest
    assert (manifest["note"], manifest["command"], manifest["format"]) == ("a note", ["pytest"], 1)
    assert manifest["sweeps"][0]["notes"] == ["built-in"]
    assert manifest["writer"]["pid"] == os.getpid()


def test_a_sweep_is_judged_by_its_own_repetitions_notes_and_cores(run):
    record = run.begin_sweep(a_record(2, reps=2, cores=2, notes=("said",), slo=an_slo(max_batch=2)))
    measure(run, record, 2)
    verdict = load_run(run.path).sweeps[0].curves[0].verdict
    assert (verdict.outcome, verdict.repetitions) == (Outcome.INCONCLUSIVE, 2)
    assert (verdict.notes, verdict.cores) == (("said",), 2)


def test_a_test_that_sweeps_twice_has_two_sweeps(run):
    first = run.begin_sweep(a_record(2, slo=an_slo(max_batch=2)))
    measure(run, first, 2)
    second = run.begin_sweep(a_record(2, slo=an_slo(max_batch=2)))
    measure(run, second, 2, failed=2)
    assert (first.sweep_id, second.sweep_id) == ("sweep", "sweep-2")
    assert [sweep.outcome for sweep in load_run(run.path).sweeps] == [Outcome.MET, Outcome.MISSED]


def test_nothing_measured_is_inconclusive(run):
    run.begin_sweep(a_record())
    assert load_run(run.path).outcome == Outcome.INCONCLUSIVE


def test_a_manifest_can_be_given_instead_of_its_directory(run):
    assert load_run(run.path / "manifest.json").run_id == run.run_id


# --- status


def test_a_run_whose_process_lives_is_running(run):
    run.begin_sweep(a_record())
    loaded = load_run(run.path)
    assert (loaded.status, loaded.sweeps[0].record.status) == ("running", "running")


def test_a_run_that_was_left_without_an_end_is_interrupted(run):
    run.begin_sweep(a_record())
    run.close()
    loaded = load_run(run.path)
    assert (loaded.status, loaded.sweeps[0].record.status) == ("interrupted", "interrupted")


def test_a_run_that_ended_stays_as_it_ended(run):
    run.finish("failed")
    assert load_run(run.path).status == "failed"
    run.close()
    assert load_run(run.path).status == "failed"


def test_a_sweep_still_running_when_the_run_ends_was_interrupted(run):
    done, unfinished = run.begin_sweep(a_record()), run.begin_sweep(a_record())
    run.finish_sweep(done.sweep_id, "complete", Outcome.MET)
    run.finish("complete")
    statuses = {sweep.sweep_id: sweep.status for sweep in read_manifest(run.path).sweeps}
    assert statuses == {done.sweep_id: "complete", unfinished.sweep_id: "interrupted"}


KILLED = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from test_run import a_record, measure
from pytest_openenv_scale.results.run_directory import RunDirectory
run = RunDirectory.create(Path({results!r}))
run.begin()
record = run.begin_sweep(a_record(1, 2, 3))
measure(run, record, 1)
measure(run, record, 2)
print(run.path, flush=True)
sys.stdin.read()
"""


def test_a_run_killed_in_the_middle_is_readable_and_interrupted(tmp_path):
    code = KILLED.format(path=sys.path, results=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    path = Path(process.stdout.readline().strip())
    assert load_run(path).status == "running"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    loaded = load_run(path)
    assert (loaded.status, loaded.problems) == ("interrupted", ())
    assert [summary.batch for summary in loaded.sweeps[0].summaries] == [1, 2]
    verdict = loaded.sweeps[0].curves[0].verdict
    assert (verdict.stopped, verdict.unmeasured) == ("ended_early", (3,))


KILLED_IN_A_CELL = """
import sys
sys.path[:0] = {path!r}
from dataclasses import replace
from pathlib import Path
from cells import a_cell, a_failure, a_meta, a_row
from test_run import a_record, measure
from pytest_openenv_scale.results.run_directory import RunDirectory
run = RunDirectory.create(Path({results!r}))
run.begin()
record = run.begin_sweep(a_record(1, 4))
measure(run, record, 1)
meta = replace(a_meta(a_cell(4), wall_s=0.0), run_id=run.run_id, sweep_id=record.sweep_id)
with run.open_part(meta) as writer:
    writer.write([a_row(0, closed_s=1.5), a_row(3, closed_s=2.5)])
    print(run.path, flush=True)
    sys.stdin.read()
"""


def test_a_run_killed_in_a_cell_keeps_its_sessions_and_cannot_be_judged_by_them(tmp_path):
    code = KILLED_IN_A_CELL.format(path=sys.path, results=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    path = Path(process.stdout.readline().strip())
    running = load_run(path)
    assert ([summary.batch for summary in running.sweeps[0].summaries], running.table().num_rows) == ([1], 1)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    loaded = load_run(path)
    assert (loaded.status, loaded.problems, loaded.table().num_rows) == ("interrupted", (), 3)
    sealed, cut_off = loaded.sweeps[0].summaries
    assert (sealed.batch, sealed.findings, cut_off.batch, cut_off.wall_s) == (1, (), 4, 2.5)
    assert [finding.kind for finding in cut_off.findings] == ["cut_off"]
    assert (cut_off.successful, cut_off.failed, cut_off.client_limited) == (2, 0, 0)
    verdict = loaded.sweeps[0].curves[0].verdict
    judged = verdict.cell(4)
    assert judged is not None
    assert (verdict.max_batch, judged.passed, judged.breaches) == (1, None, ())
    assert [(reason.kind, reason.cause) for reason in judged.reasons] == [("cut_off", "cut_off")]


# --- several processes


def sweep_in_another_process(path, number):
    run = RunDirectory.open(Path(path))
    for turn in range(5):
        record = run.begin_sweep(replace(a_record(), sweep_id=f"s{number}-{turn}"))
        run.finish_sweep(record.sweep_id, "complete")


def test_processes_that_write_to_one_run_lose_nothing_of_each_other(run):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=sweep_in_another_process, args=(str(run.path), n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    sweeps = read_manifest(run.path).sweeps
    assert {sweep.sweep_id for sweep in sweeps} == {f"s{n}-{turn}" for n in range(3) for turn in range(5)}
    assert {sweep.status for sweep in sweeps} == {"complete"}


def test_a_process_that_takes_part_does_not_end_the_run(run):
    RunDirectory.open(run.path).close()
    assert load_run(run.path).status == "running"


# --- temporary runs


def test_a_temporary_run_stays_nowhere(tmp_path):
    with RunDirectory.create(tmp_path, kept=False) as run:
        run.begin()
        assert run.kept_path is None
        assert RunDirectory.open(run.path).kept_path is None
        assert load_run(run.path).status == "running"


def test_a_run_that_is_kept_says_where(run):
    assert run.kept_path == run.path
    assert RunDirectory.open(run.path).kept_path == run.path


# --- damage and mistakes


def test_a_damaged_part_is_named_and_leaves_the_other_cells_as_they_are(run):
    record = run.begin_sweep(a_record(slo=an_slo(max_batch=2)))
    measure(run, record, 2)
    path = measure(run, record, 4)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    loaded = load_run(run.path)
    assert [summary.batch for summary in loaded.sweeps[0].summaries] == [2]
    assert loaded.outcome == Outcome.MET
    assert len(loaded.problems) == 1
    assert path.name in loaded.problems[0]
    assert loaded.table().num_rows == 2


def test_a_part_whose_rows_are_damaged_is_named_too(run):
    record = run.begin_sweep(a_record())
    path = measure(run, record, 2)
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(2000) + content[2004:])
    loaded = load_run(run.path)
    assert path.name in loaded.problems[0]
    assert loaded.outcome == Outcome.INCONCLUSIVE


def test_parts_of_a_sweep_the_manifest_does_not_know_are_a_problem(golden, run):
    measure(run, replace(a_record(), sweep_id="lost"), 2)
    golden(load_run(run.path).problems)


def test_a_path_that_holds_no_run_says_so(golden, tmp_path, run):
    with pytest.raises(RunError) as caught:
        load_run(tmp_path / "missing")
    golden(caught.value)
    with pytest.raises(RunError, match=r"it has no manifest\.json$"):
        load_run(tmp_path)
    with pytest.raises(RunError) as caught:
        load_run(run.path.parent)
    golden(caught.value)
    (tmp_path / "file").touch()
    with pytest.raises(RunError) as caught:
        load_run(tmp_path / "file")
    golden(caught.value)
    with pytest.raises(RunError) as caught:
        RunDirectory.open(tmp_path / "missing")
    golden(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"format": 1}',
        '{"format": 2, "new": true}',
    ],
)
def test_a_manifest_that_cannot_be_read_says_why(golden, run, content):
    (run.path / "manifest.json").write_text(content)
    with pytest.raises(RunError) as caught:
        load_run(run.path)
    golden(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("run_id",), '"../elsewhere"'),
        (("run_id",), '".hidden"'),
        (("started_at",), '"2026-11-30T10:00:00"'),
        (("plan",), "NaN"),
        (("plan",), "1e999"),
        (("plan",), "[" * 10_000 + "]" * 10_000),
        (("fingerprint",), '"none"'),
        (("sweeps", 0, "reps"), "1000000000000"),
        (("sweeps", 0, "cores"), "-1"),
        (("sweeps", 0, "curves", 0, "batches"), "[1000000000000]"),
        (("note",), '"\\ud800"'),
    ],
)
def test_a_manifest_that_others_wrote_is_refused_by_the_place_that_does_not_fit(golden, run, place, value):
    run.begin_sweep(a_record())
    with_value(run.path / "manifest.json", place, value)
    with pytest.raises(RunError) as caught:
        load_run(run.path)
    golden(re.sub(r"byte \d+", "byte N", str(caught.value)))


@pytest.mark.parametrize("git", ['"main"', "[]", '{"commit": 3, "branch": [], "dirty": "yes"}', "7"])
def test_a_fingerprint_of_another_shape_tells_nothing_of_the_checkout(run, git):
    with_value(run.path / "manifest.json", ("fingerprint", "git"), git)
    assert git_state(load_run(run.path).record) == (None, None, None)


def with_value(file, place, json_text):
    """Put a value into stored JSON, also one that no writer would write."""
    content = json.loads(file.read_text())
    parent = content
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = "here"
    file.write_text(json.dumps(content).replace('"here"', json_text))


def test_a_sweep_with_curves_but_no_limits_for_them_is_damage(run):
    run.begin_sweep(a_record())
    manifest = json.loads((run.path / "manifest.json").read_text())
    manifest["sweeps"][0]["slos"] = []
    (run.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match=r"sweeps\[0\]: 1 curves have 0 SLOs"):
        load_run(run.path)


def test_results_that_cannot_be_written_are_one_line_with_the_way_out(golden, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError) as caught:
        RunDirectory.create(tmp_path / "file" / "results")
    golden(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_is_never_created_over_another(run):
    with pytest.raises(RunError, match="File exists"):
        RunDirectory.create(run.path.parent, run.run_id)


def test_a_full_disk_is_one_line(golden, run, monkeypatch):
    import pyarrow.parquet as pq

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(RunError) as caught:
        measure(run, a_record(), 2)
    golden(caught.value)


# --- secrets and the fingerprint


def test_the_command_line_is_kept_without_secrets(tmp_path):
    with RunDirectory.create(tmp_path) as run:
        run.begin(command=["pytest", "--openenv-header", "A: s3cr3t", "--openenv-url=http://u:s3cr3t@h/"])
    assert "s3cr3t" not in (run.path / "manifest.json").read_text()
    assert read_manifest(run.path).command[2] == "A: ***"


def test_the_fingerprint_names_machine_interpreter_versions_and_commit(tmp_path):
    def git(*arguments):
        identity = ("-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", tmp_path, *identity, *arguments], check=True, capture_output=True)

    git("init", "-b", "main")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "first")
    facts = fingerprint(tmp_path)
    assert facts["git"]["branch"] == "main"
    assert re.fullmatch("[0-9a-f]{40}", facts["git"]["commit"])
    assert facts["git"]["dirty"] is False
    (tmp_path / "file").write_text("2")
    assert fingerprint(tmp_path)["git"]["dirty"] is True
    assert facts["machine"]["cores"] == os.cpu_count()
    assert facts["python"]["version"] == ".".join(map(str, sys.version_info[:3]))
    assert "pyarrow" in facts["packages"]
    assert json.dumps(facts)


def test_outside_a_git_checkout_there_is_no_commit(tmp_path):
    assert fingerprint(tmp_path)["git"] is None


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert fingerprint(tmp_path)["git"] is None
