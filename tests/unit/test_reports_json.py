import json
import os
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from compare_samples import a_pair
from report_samples import BUSY, a_run, a_sweep, doubtful_sweep, measured, refused_sweep

from pytest_openenv_scale.analysis.compare import compare_runs
from pytest_openenv_scale.analysis.run import load_run
from pytest_openenv_scale.config.limits import parse_fail_on
from pytest_openenv_scale.core.endpoint import ExitStatus
from pytest_openenv_scale.core.errors import RunError
from pytest_openenv_scale.reporting import junit_properties, write_json, write_reports
from pytest_openenv_scale.reporting.content.refusals import refusal_words
from pytest_openenv_scale.reporting.content.verdicts import headline
from pytest_openenv_scale.reporting.json import comparison_document, run_document, run_json

STORED = sorted(Path(__file__).parents[1].glob("stored/*/*/report.json"))


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def test_the_report_is_strict_json_and_says_its_format():
    report = json.loads(run_json(a_run(Path("run"))), parse_constant=refuse)
    assert report == run_document(a_run(Path("run")))
    assert (report["format"], report["run_id"], report["status"]) == (1, "20261121T120000.000Z-3fa9", "complete")
    assert report["outcome"] == "missed"


def test_a_curve_holds_what_a_gate_in_ci_needs():
    view = refused_sweep()
    (sweep,) = run_document(a_run(Path("run"), view))["sweeps"]
    (curve,) = sweep["curves"]
    assert (sweep["test"], sweep["startup_s"]) == ("test_scale.py::test_holds_256_sessions", 0.812)
    assert (curve["mode"], curve["wait"], curve["max_batch"], curve["infeasible_min"]) == ("ws", 1.0, 128, 256)
    assert (curve["outcome"], curve["headline"]) == ("missed", headline(view.curves[0]))
    assert (curve["first_breach"]["limit"], curve["first_breach"]["observed"]) == ("success", 0.78125)
    assert curve["first_breach"] == curve["cells"][-1]["breaches"][0]
    assert curve["slo"][0] == {
        "name": "max_batch",
        "allowed": 256,
        "source": "mark",
        "unit": "sessions",
        "direction": ">=",
    }


def test_a_verdict_is_told_in_values_and_in_words():
    sweep = refused_sweep()
    (curve,) = run_document(a_run(Path("run"), sweep))["sweeps"][0]["curves"]
    assert curve["reasons"][0] == {"kind": "verdict", "text": curve["headline"], "detail": None}
    assert curve["reasons"][1] == {"kind": "limit", "text": curve["first_breach"]["text"], "detail": None}
    (refused,) = curve["refused"]
    assert (refused["cause"], refused["count"], refused["batch"], refused["exit"]) == ("capacity", 56, 256, None)
    evidence = {"limit": 100, "workers": 2, "held": 200, "successful": 200}
    sizes = {"needed": 256, "room": 256, "at_least": False, "busiest": None, "of": None, "is_key_of_target": True}
    assert refused["figures"] == {**sizes, **evidence}
    assert [(step["kind"], step["name"], step["sure"]) for step in refused["steps"]] == [
        *(("key", "max_envs", True), ("argument", "max_concurrent_envs", False), ("ask", "isolation", True))
    ]
    assert (refused["text"], refused["remedy"]) == refusal_words(sweep.curves[0].verdict.refused[0])


def test_how_a_server_ended_is_a_sentence_and_a_value():
    sweep = a_sweep(measured(8, server_exit=ExitStatus.from_returncode(-9), log_tail="bye"))
    (curve,) = run_document(a_run(Path("run"), sweep))["sweeps"][0]["curves"]
    (cell,) = curve["cells"]
    (repetition,), (reason,), (refused,) = cell["repetitions"], cell["reasons"], curve["refused"]
    assert repetition["server_exit"] == "killed by SIGKILL"
    ended = repetition["exit"]
    assert (ended["kind"], ended["signal"], ended["text"]) == ("killed", "SIGKILL", "killed by SIGKILL")
    assert (reason["kind"], reason["detail"], reason["exit"]) == ("server_died", "bye", ended)
    assert (refused["cause"], refused["exit"]) == ("server_died", ended)
    assert all("killed by SIGKILL" in text for text in (reason["text"], refused["text"], curve["headline"]))


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
    (reason,) = curve["cells"][1]["reasons"]
    assert (reason["kind"], reason["cause"], reason["batch"], reason["repetition"]) == ("client", "cpu", 64, 1)
    assert (reason["words"], reason["text"]) == (BUSY, f"{BUSY} (batch 64)")


def test_a_change_in_doubt_is_told_in_a_value_and_in_a_sentence():
    comparison = compare_runs(*a_pair({"doubtful": (8,)}), parse_fail_on(["total_p99:+15%"]))
    document = comparison_document(comparison)
    assert document["outcome"] == "inconclusive"
    doubtful = [change for change in document["curves"][0]["changes"] if change["doubt"]]
    assert {(change["batch"], change["doubt"]["cause"]) for change in doubtful} == {(8, "cpu")}
    says = "the newer run is inconclusive: the load process was at 99 % CPU (batch 8)"
    assert {change["reason"] for change in doubtful} == {says}


@pytest.mark.parametrize("stored", STORED, ids=lambda path: path.parent.name)
def test_the_report_of_an_older_run_says_all_it_said(stored):
    before, now = json.loads(stored.read_text()), json.loads(run_json(load_run(stored.parent)))
    for report in (before, now):
        for curve in (curve for sweep in report["sweeps"] for curve in sweep["curves"]):
            for refused in curve["refused"]:
                assert refused.pop("remedy")  # What is advised may be better than it was.
    assert list(differences(before, now)) == []


SENTENCES = ("headline", "text")


def differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """Yield what a report said and no longer says, or says differently.

    A time may be written in another form, and a sentence in other words: what it tells of is there as a value.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for name, value in before.items():
            if name not in SENTENCES:
                yield from differences(value, now.get(name, "not there"), f"{path}.{name}")
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for number, (then, today) in enumerate(zip(before, now, strict=True)):
            yield from differences(then, today, f"{path}[{number}]")
    elif before != now and not (path.endswith("ed_at") and is_same_time(before, now)):
        yield f"{path}: {before!r} → {now!r}"


def is_same_time(before: str | None, now: str | None) -> bool:
    return bool(before and now) and datetime.fromisoformat(before) == datetime.fromisoformat(now)


def test_problems_of_a_run_are_told(golden):
    report = run_document(a_run(Path("run"), status="interrupted", problems=["part: damaged"]))
    golden(report["problems"])


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


def test_a_report_that_cannot_be_written_is_one_line(golden, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError) as caught:
        write_reports(a_run(tmp_path / "file"))
    golden(caught.value)


def test_a_report_can_be_read_by_others_as_far_as_the_umask_allows(tmp_path):
    before = os.umask(0o022)
    try:
        write_reports(a_run(tmp_path))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "report.json").stat().st_mode) == 0o644


def test_junit_properties_name_their_curve():
    sweep = refused_sweep()
    assert junit_properties(sweep) == [
        ("openenv_verdict", "missed"),
        ("openenv_target", "local:app:app,server=uvicorn"),
        ("openenv_infrastructure", "local-uvicorn"),
        ("openenv_max_batch[ws,wait=1]", 128),
        ("openenv_max_batch_per_core[ws,wait=1]", 64.0),
        ("openenv_success[ws,wait=1]", 0.78125),
        ("openenv_success_batch[ws,wait=1]", 256),
        ("openenv_total_p99[ws,wait=1]", 1.1125),
        ("openenv_total_p99_batch[ws,wait=1]", 128),
        ("openenv_reason[ws,wait=1]", headline(sweep.curves[0])),
    ]
