import json
import os
import stat
from pathlib import Path

import pytest
from report_samples import a_run, doubtful_sweep, refused_sweep

from pytest_openenv_scale.core.errors import RunError
from pytest_openenv_scale.reporting import junit_properties, write_json, write_reports
from pytest_openenv_scale.reporting.json import run_document, run_json


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def test_the_report_is_strict_json_and_says_its_format():
    report = json.loads(run_json(a_run(Path("run"))), parse_constant=refuse)
    assert report == run_document(a_run(Path("run")))
    assert (report["format"], report["run_id"], report["status"]) == (1, "20261121T120000.000Z-3fa9", "complete")
    assert report["outcome"] == "missed"


def test_a_curve_holds_what_a_gate_in_ci_needs():
    (sweep,) = run_document(a_run(Path("run"), refused_sweep()))["sweeps"]
    (curve,) = sweep["curves"]
    assert (sweep["test"], sweep["startup_s"]) == ("test_scale.py::test_holds_256_sessions", 0.812)
    assert (curve["mode"], curve["wait"], curve["max_batch"], curve["infeasible_min"]) == ("ws", 1.0, 128, 256)
    assert curve["headline"] == "SLO missed: max_batch ≥ 256, got 128 in 3 of 3 repetitions"
    assert curve["first_breach"]["observed"] == 0.78125
    assert curve["refused"][0]["cause"] == "capacity"
    assert curve["slo"][0] == {
        "name": "max_batch",
        "allowed": 256,
        "source": "mark",
        "unit": "sessions",
        "direction": ">=",
    }


def test_a_cell_holds_every_statistic_of_every_repetition():
    (curve,) = run_document(a_run(Path("run"), refused_sweep()))["sweeps"][0]["curves"]
    assert [cell["batch"] for cell in curve["cells"]] == [32, 128, 256]
    assert [cell["passed"] for cell in curve["cells"]] == [True, True, False]
    last = curve["cells"][-1]["repetitions"]
    assert [(cell["repetition"], cell["failed"], cell["successful"]) for cell in last] == [
        *((1, 56, 200), (2, 54, 202), (3, 56, 200))
    ]
    assert set(last[0]["phases"]["total"]) == {"count", "min", "mean", "max", "p50", "p90", "p95", "p99"}


def test_a_batch_in_doubt_is_null():
    (curve,) = run_document(a_run(Path("run"), doubtful_sweep()))["sweeps"][0]["curves"]
    assert [cell["passed"] for cell in curve["cells"]] == [True, None]


def test_problems_of_a_run_are_told():
    report = run_document(a_run(Path("run"), status="interrupted", problems=["part: damaged"]))
    assert report["problems"] == [
        *("the run was interrupted; what it measured until then is shown", "part: damaged"),
    ]


def test_reports_are_written_into_the_run_and_to_a_fixed_path(tmp_path):
    run = a_run(tmp_path / "run")
    fixed = tmp_path / "new" / "openenv.json"
    written = [*write_reports(run), write_json(run, fixed)]
    assert set(written) == {fixed, run.path / "report.json", run.path / "report.md"}
    assert fixed.read_text() == (run.path / "report.json").read_text() == run_json(run)
    assert all(path.exists() for path in written)


def test_no_other_file_is_left_behind(tmp_path):
    write_reports(a_run(tmp_path))
    write_reports(a_run(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md"]


def test_only_the_formats_asked_for_are_written(tmp_path):
    assert write_reports(a_run(tmp_path), formats=()) == [tmp_path / "report.json"]


def test_a_run_that_is_not_kept_gets_no_report_of_its_own(tmp_path):
    run = a_run(tmp_path / "gone", kept=False)
    assert write_reports(run) == []
    assert not run.path.exists()


def test_a_report_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        RunError, match=r"^the report cannot be written: .*report.json: .*file is a file, not a folder$"
    ):
        write_reports(a_run(tmp_path / "file"))


def test_a_report_can_be_read_by_others_as_far_as_the_umask_allows(tmp_path):
    before = os.umask(0o022)
    try:
        write_reports(a_run(tmp_path))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "report.json").stat().st_mode) == 0o644


def test_junit_properties_name_their_curve():
    assert junit_properties(refused_sweep()) == [
        ("openenv_verdict", "missed"),
        ("openenv_target", "local:app:app,server=uvicorn"),
        ("openenv_infrastructure", "local-uvicorn"),
        ("openenv_max_batch[ws,wait=1]", 128),
        ("openenv_max_batch_per_core[ws,wait=1]", 64.0),
        ("openenv_success[ws,wait=1]", 0.78125),
        ("openenv_total_p99[ws,wait=1]", 1.1125),
        ("openenv_reason[ws,wait=1]", "SLO missed: max_batch ≥ 256, got 128 in 3 of 3 repetitions"),
    ]
