"""`openenv-scale import` and `export`: the older files come in and go out without losing what they hold."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import older_files as older
import pytest
from cells import a_cell, a_failure, a_meta, a_row
from hypothesis import given, settings
from hypothesis import strategies as st
from study_samples import sample, stored_run

from goldens import Golden
from pytest_openenv_scale.__main__ import main
from pytest_openenv_scale.analysis.run import Run, load_run
from pytest_openenv_scale.legacy.exporting import export_older
from pytest_openenv_scale.legacy.files import SUMMARY_COLUMNS, error_type_of
from pytest_openenv_scale.legacy.importing import OlderFiles, import_older, older_max_batch
from pytest_openenv_scale.results.run_directory import RunDirectory


def imported(folder: Path, results: Path, **kwargs: Any) -> list[Run]:
    summary = folder / "summary.csv"
    source = OlderFiles(folder / "raw.jsonl", summary if summary.exists() else None, "local-uvicorn")
    result = import_older(source, results, **kwargs)
    return [load_run(path) for path in result.made]


def study(tmp_path: Path) -> Path:
    """Write two batches, three repetitions each, the larger of which is partly refused."""
    repetitions = [older.repetition(8) for _ in range(3)] + [older.repetition(16, good=good) for good in (16, 16, 8)]
    lines = [older.line(rows, 1 + number % 3) for number, rows in enumerate(repetitions)]
    return older.write(tmp_path / "old", [row for rows in repetitions for row in rows], lines)


def test_a_run_is_judged_by_the_rule_of_every_report(tmp_path: Path) -> None:
    [run] = imported(study(tmp_path), tmp_path / "results", cores=4)

    [sweep] = run.sweeps
    [curve] = sweep.curves
    assert (sweep.infrastructure, sweep.record.hardware, sweep.record.reps) == ("local-uvicorn", "cpu-basic", 3)
    assert curve.curve.batches == (8, 16)
    assert curve.verdict.max_batch == 8
    assert curve.verdict.max_batch_per_core == 2
    assert [summary.repetition for summary in curve.summaries] == [1, 2, 3, 1, 2, 3]
    assert curve.summaries[0].requests_per_second == 8 / 1.5
    assert curve.summaries[0].phases["step"].p50 == 1.001
    assert run.record.started_at == datetime(2026, 1, 14, 9, 30, 0, 250000, UTC)


def test_what_the_older_files_do_not_tell_is_unknown(tmp_path: Path) -> None:
    [run] = imported(study(tmp_path), tmp_path / "results")

    failed = [row for row in run.table().to_pylist() if not row["success"]]
    assert {row["error_type"] for row in failed} == {"refused"}
    assert {row["error_phase"] for row in failed} == {"connect"}
    assert {row["connect_latency"] for row in failed} == {None}
    assert {row["total_latency"] for row in failed} == {None}
    assert run.sweeps[0].record.timeout_s is None
    assert {summary.peak_concurrency for summary in run.sweeps[0].summaries} == {None}


def test_the_curves_on_which_the_older_rule_differs_are_named(golden: Golden, tmp_path: Path) -> None:
    repetitions = [older.repetition(8, good=7), older.repetition(16)]
    lines = [older.line(rows, 1) for rows in repetitions]
    folder = older.write(tmp_path / "old", [row for rows in repetitions for row in rows], lines)

    [run] = imported(folder, tmp_path / "results")

    assert older_max_batch(run.sweeps[0].summaries) == 16
    assert run.sweeps[0].curves[0].verdict.max_batch is None
    golden(run.sweeps[0].record.notes)


def test_no_note_where_both_rules_agree(tmp_path: Path) -> None:
    [run] = imported(study(tmp_path), tmp_path / "results")
    assert older_max_batch(run.sweeps[0].summaries) == 8
    assert run.sweeps[0].record.notes == ()


def test_importing_again_changes_nothing(tmp_path: Path) -> None:
    folder = study(tmp_path)
    [run] = imported(folder, tmp_path / "results")
    assert imported(folder, tmp_path / "results") == []
    assert [path.name for path in (tmp_path / "results").iterdir()] == [run.run_id]


def test_a_file_that_was_appended_to_holds_several_runs(tmp_path: Path) -> None:
    rows = older.repetition(4)
    folder = older.write(tmp_path / "old", [*rows, *rows, *rows], [older.line(rows, n) for n in (0, 1, 0)])

    runs = imported(folder, tmp_path / "results")

    assert sorted(len(run.sweeps[0].summaries) for run in runs) == [1, 2]


def test_the_oldest_files_have_no_batch_size_and_no_hardware(tmp_path: Path) -> None:
    rows = [
        {key: value for key, value in row.items() if key not in ("batch_size", "hardware")}
        for row in older.repetition(4)
    ]
    folder = older.write(tmp_path / "old", [*rows, *rows])

    [run] = imported(folder, tmp_path / "results")

    [curve] = run.sweeps[0].curves
    assert curve.curve.batches == (4,)
    assert [summary.repetition for summary in curve.summaries] == [1, 2]
    assert curve.summaries[0].requests_per_second is None  # There is no wall time without a summary.


def test_different_hardware_and_modes_are_curves_of_their_own(tmp_path: Path) -> None:
    basic = older.repetition(4)
    upgraded = [{**row, "hardware": "cpu-upgrade"} for row in basic]
    http = older.repetition(4, mode="http")
    repetitions = [basic, upgraded, http]
    folder = older.write(
        tmp_path / "old", [row for rows in repetitions for row in rows], [older.line(rows, 1) for rows in repetitions]
    )

    [run] = imported(folder, tmp_path / "results")

    assert [(sweep.record.hardware, [view.curve.mode for view in sweep.curves]) for sweep in run.sweeps] == [
        ("cpu-basic", ["ws", "http"]),
        ("cpu-upgrade", ["ws"]),
    ]
    http_rows = [row for row in run.table().to_pylist() if row["mode"] == "http"]
    assert {row["connect_latency"] for row in http_rows} == {None}


def test_where_files_and_their_summary_disagree_is_said(golden: Golden, tmp_path: Path) -> None:
    rows = older.repetition(4, good=3)
    folder = older.write(tmp_path / "old", rows, [older.line(rows, 1, successful=4)])
    [run] = imported(folder, tmp_path / "results")
    golden(run.sweeps[0].summaries[0].notes)


def test_lines_without_sessions_are_kept_and_said(
    golden: Golden, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = older.repetition(4)
    lines = [older.line(rows, 1), older.line(older.repetition(8), 1)]
    folder = older.write(tmp_path / "old", rows, lines)
    results = tmp_path / "results"

    assert main(["import", str(folder), "--infrastructure", "lab", "--results", str(results)]) == 0

    golden(capsys.readouterr().out)
    [run] = results.iterdir()
    assert main(["export", str(run), "--output", str(tmp_path / "back")]) == 0
    assert older.read(tmp_path / "back")[1] == older.read(folder)[1]


def test_what_came_in_goes_out_as_it_was(tmp_path: Path) -> None:
    folder = study(tmp_path)
    [run] = imported(folder, tmp_path / "results")
    export_older(run.path, tmp_path / "back")
    assert older.read(tmp_path / "back") == older.read(folder)


@st.composite
def any_session(draw: st.DrawFn, number: int, batch: int, wait: float) -> dict[str, Any]:
    latency = st.floats(1e-6, 1e3)
    if draw(st.booleans()):
        return older.session(
            number,
            batch=batch,
            wait=wait,
            **{f"{phase}_latency": draw(latency) for phase in ("connect", "reset", "step", "total")},
            host_url=draw(st.none() | st.text(max_size=8)),
        )
    reached = draw(st.integers(0, 3))
    phases = {
        f"{phase}_latency": draw(latency) if at < reached else 0.0
        for at, phase in enumerate(("connect", "reset", "step"))
    }
    failure = {
        "success": False,
        "error_type": draw(st.text("ABCdef_.", min_size=1, max_size=12)),
        "error_message": draw(st.none() | st.text(max_size=20)),
    }
    ended = {"total_latency": draw(st.just(0.0) | latency), "waited_seconds": 0.0}
    return older.session(number, batch=batch, wait=wait, **phases, **failure, **ended)


@st.composite
def any_file(draw: st.DrawFn) -> list[list[dict[str, Any]]]:
    sizes = st.lists(st.tuples(st.integers(1, 4), st.sampled_from([0.0, 0.1, 1.0])), min_size=1, max_size=4)
    return [[draw(any_session(at, batch, wait)) for at in range(batch)] for batch, wait in draw(sizes)]


@settings(max_examples=25, deadline=None)
@given(any_file())
def test_nothing_the_older_format_holds_is_lost(
    tmp_path_factory: pytest.TempPathFactory, repetitions: list[list[dict[str, Any]]]
) -> None:
    tmp_path = tmp_path_factory.mktemp("older")
    lines = [older.line(rows, number) for number, rows in enumerate(repetitions)]
    folder = older.write(tmp_path / "old", [row for rows in repetitions for row in rows], lines)

    runs = imported(folder, tmp_path / "results")
    for run in runs:
        export_older(run.path, tmp_path / "back" / run.run_id)

    back = [older.read(tmp_path / "back" / run.run_id) for run in runs]
    by_cell = lambda row: json.dumps([row["mode"], str(row.get("wait_requested")), row["batch_size"]])  # noqa: E731
    original = older.read(folder)
    assert sorted((row for rows, _ in back for row in rows), key=by_cell) == sorted(original[0], key=by_cell)
    assert sorted((str(row) for _, rows in back for row in rows)) == sorted(str(row) for row in original[1])


def test_a_measured_run_goes_out_and_comes_back(tmp_path: Path) -> None:
    curves = {("ws", 1.0): {1: (1.0, 0.01), 8: (0.75, 0.02)}, ("http", 1.0): {4: (1.0, 0.01)}}
    run = stored_run(tmp_path / "results", sample(curves=curves))
    export_older(run.path, tmp_path / "older")
    rows, lines = older.read(tmp_path / "older")
    assert tuple(lines[0]) == SUMMARY_COLUMNS
    assert len(rows) == sum(summary.asked for sweep in run.sweeps for summary in sweep.summaries)

    reimported = [
        load_run(path)
        for path in import_older(
            OlderFiles(tmp_path / "older" / "raw.jsonl", tmp_path / "older" / "summary.csv", "again"),
            tmp_path / "again",
        ).made
    ]

    def figures(runs: list[Run]) -> list[Any]:
        return sorted(
            (
                summary.cell.mode,
                summary.cell.wait or 0,
                summary.batch,
                summary.successful,
                summary.failed + summary.client_limited,
                round(summary.phases["total"].p99, 9) if "total" in summary.phases else None,
            )
            for run in runs
            for sweep in run.sweeps
            for summary in sweep.summaries
        )

    assert figures(reimported) == figures([run])


@pytest.mark.parametrize(("due_s", "counted"), [(5.0, True), (1.0, False)])
def test_only_sessions_that_count_go_out(tmp_path: Path, due_s: float, counted: bool) -> None:
    began = {"due_s": due_s, "judged": counted}
    rows = [
        a_row(0, **began),
        a_failure(1)._replace(**began),
        a_row(2, judged=False, due_s=1.0, step_latency=9.0),
        a_row(3, due_s=due_s, judged=False),
        a_failure(4)._replace(**began),
    ]
    with RunDirectory.create(tmp_path / "results") as directory:
        directory.begin(command=("pytest",))
        directory.write_cell(rows, a_meta(a_cell(2, arrival="steady=9,ramp=3")))
        directory.finish("complete")
    export_older(directory.path, tmp_path / "older")
    written, (line,) = older.read(tmp_path / "older")
    assert len(written) == 4 * counted
    figures = [line[name] for name in ("num_requests", "successful", "error_rate", "step_p99")]
    assert figures == (["4", "2", "0.5", "1.0"] if counted else ["0", "0", "", ""])


@pytest.mark.parametrize(
    ("name", "message", "kind"),
    [
        ("ConnectionRefusedError", "no", "refused"),
        ("websockets.exceptions.ConnectionClosedOK", None, "closed_early"),
        ("RuntimeError", "server said CAPACITY_REACHED", "capacity"),
        ("OSError", "Too many open files", "client_limit"),
        ("capacity", None, "capacity"),
        ("SomethingElse", "odd", None),
    ],
)
def test_exceptions_have_a_kind_where_they_tell_one(name: str, message: str | None, kind: str | None) -> None:
    assert error_type_of(name, message) == kind


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]\n",
        "nonsense\n{}",
        "",
    ],
)
def test_a_file_of_another_format_is_one_line(
    golden: Golden, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "raw.jsonl").write_text(text)
    results = tmp_path / "results"
    assert main(["import", str(tmp_path), "--infrastructure", "lab", "--results", str(results)]) == 2
    error = capsys.readouterr().err
    golden(error, masks={r"(older format): .*": r"\1: WHY"})
    assert error.count("\n") == 1
    assert not list(results.glob("*")) if results.exists() else True


def test_a_time_that_is_none_is_named(golden: Golden, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    older.write(tmp_path, [older.session(0, batch=1, timestamp="yesterday")])
    assert main(["import", str(tmp_path), "--infrastructure", "lab", "--results", str(tmp_path / "r")]) == 2
    golden(capsys.readouterr().err, masks={r"(older format): .*": r"\1: WHY"})


def test_a_last_line_cut_short_is_left_out_and_said(
    golden: Golden, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = older.repetition(3)
    older.write(tmp_path, rows)
    with (tmp_path / "raw.jsonl").open("a") as file:
        file.write(json.dumps(rows[0])[:40])
    assert main(["import", str(tmp_path), "--infrastructure", "lab", "--results", str(tmp_path / "r")]) == 0
    golden(capsys.readouterr().out)


@pytest.mark.parametrize(
    "change",
    [
        {"total_wall_time": "soon"},
        {"mode": "tcp"},
    ],
)
def test_a_bad_summary_is_one_line(
    golden: Golden, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    rows = older.repetition(2)
    older.write(tmp_path, rows, [older.line(rows, 1, **change)])
    assert main(["import", str(tmp_path), "--infrastructure", "lab", "--results", str(tmp_path / "r")]) == 2
    golden(capsys.readouterr().err)


def test_the_infrastructure_is_read_off_the_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    older.write(tmp_path / "slurm-single" / "2026-01-14", older.repetition(2))
    results = tmp_path / "results"
    assert main(["import", str(tmp_path), "--results", str(results)]) == 0
    [path] = results.iterdir()
    assert load_run(path).sweeps[0].infrastructure == "slurm-single"

    older.write(tmp_path / "plain", older.repetition(2))
    assert main(["import", str(tmp_path / "plain"), "--results", str(results)]) == 2
    assert "write --infrastructure NAME" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["latest", "id"])
def test_a_run_is_called_by_its_id_or_latest(tmp_path: Path, name: str) -> None:
    [run] = imported(study(tmp_path), tmp_path / "results")
    called = run.run_id if name == "id" else name
    assert main(["export", called, "--results", str(tmp_path / "results"), "--output", str(tmp_path / "back")]) == 0
    assert (tmp_path / "back" / "raw.jsonl").exists()


def test_missing_files_are_named(golden: Golden, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(tmp_path / "nowhere")]) == 2
    assert main(["import", str(tmp_path)]) == 2
    assert main(["export", str(tmp_path / "nowhere")]) == 2
    errors = capsys.readouterr().err.splitlines()
    golden(errors[0])
    golden(errors[1])
    golden(errors[2])


def test_existing_files_are_never_replaced(golden: Golden, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [run] = imported(study(tmp_path), tmp_path / "results")
    assert main(["export", str(run.path)]) == 0
    assert main(["export", str(run.path)]) == 2
    golden(capsys.readouterr().err)


@pytest.mark.parametrize(
    "change",
    [
        {"request_id": 2**70},
        {"request_id": -1},
        {"batch_size": 2**40},
        {"batch_size": -1},
        {"total_latency": -0.5},
        {"wait_requested": 1e300},
        {"timestamp": "0001-01-01T00:00:00+05:00"},
        {"timestamp": "9999-12-31T23:59:59Z"},
    ],
)
def test_figures_no_measurement_has_are_one_line(
    golden: Golden, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    older.write(tmp_path, [{**older.session(0, batch=1), **change}])
    assert main(["import", str(tmp_path), "--infrastructure", "lab", "--results", str(tmp_path / "r")]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    golden(error, masks={r"(older format): .*": r"\1: WHY"})


def test_a_compressed_file_is_named_as_one(golden: Golden, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "raw.jsonl").write_bytes(gzip.compress(b"{}"))
    assert main(["import", str(tmp_path), "--infrastructure", "lab", "--results", str(tmp_path / "r")]) == 2
    golden(capsys.readouterr().err)


def test_files_that_went_through_an_editor_of_windows_are_read(tmp_path: Path) -> None:
    folder = older.write(tmp_path / "old", rows := older.repetition(4), [older.line(rows, 1)])
    for path in folder.iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    (run,) = imported(folder, tmp_path / "results")
    assert run.sweeps[0].curves[0].verdict.max_batch == 4
    assert run.sweeps[0].summaries[0].wall_s == 1.5


def test_a_password_in_a_url_stays_where_it_was(tmp_path: Path) -> None:
    rows = older.repetition(4)
    line = older.line(rows, 1, url="https://user:hunter2@example.test/?token=hunter2")
    lonely = older.line(older.repetition(8), 1, url="https://user:hunter2@example.test")
    (run,) = imported(older.write(tmp_path / "old", rows, [line, lonely]), tmp_path / "results")
    export_older(run.path, tmp_path / "back")
    written = [path for folder in (run.path, tmp_path / "back") for path in folder.rglob("*") if path.is_file()]
    assert len(written) >= 4
    assert not [path for path in written if b"hunter2" in path.read_bytes()]


def test_sessions_that_are_missing_are_said_once(
    golden: Golden, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older.write(tmp_path, [*older.repetition(8)[:4], *older.repetition(8)[:5]])
    assert main(["import", str(tmp_path), "--infrastructure", "lab", "--results", str(tmp_path / "r")]) == 0
    golden([line for line in capsys.readouterr().out.splitlines() if "batch 8" in line])


def test_what_a_second_import_does_not_change_is_said(
    golden: Golden, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older.write(tmp_path, older.repetition(4))
    command = ["import", str(tmp_path), "--infrastructure", "lab", "--results", str(tmp_path / "r")]
    main([*command, "--cores", "4"])
    main([*command, "--cores", "4"])
    assert "left as it is" not in capsys.readouterr().out
    assert main([*command, "--cores", "8", "--note", "again"]) == 0
    golden(capsys.readouterr().out)


def test_the_kind_read_off_a_message_is_not_what_the_file_said(tmp_path: Path) -> None:
    failure = {"success": False, "error_type": None, "error_message": "CAPACITY_REACHED\u2028"}
    rows = [older.session(0, batch=1, total_latency=0.5, **failure)]
    (run,) = imported(older.write(tmp_path / "old", rows), tmp_path / "results")
    assert run.table()["error_type"].to_pylist() == ["capacity"]
    raw, _ = export_older(run.path, tmp_path / "back")
    assert [json.loads(line) for line in raw.read_text().splitlines()] == rows
