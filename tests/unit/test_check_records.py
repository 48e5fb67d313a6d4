"""A check is kept as a file of the run, read back as it was, and counts in the outcome of it all."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_openenv_scale.results.outcome import (
    CheckOutcome,
    CheckRecord,
    CheckResult,
    Outcome,
    Transcript,
    TranscriptLine,
    combine_with_checks,
    read_checks,
    write_check,
)

STARTED = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def record(outcome: str = "met", test: str = "suite/test_isolation.py::test_isolation[interleaved]", **changes):
    result = CheckResult(
        CheckOutcome(outcome),
        "16 sessions, none saw another",
        remedy="none",
        details=("one", "two"),
        figures={"sessions": 16, "took_s": 0.5, "hosts": None, "seen_by": "step_count"},
        series={"p50_s": (0.1, None, 0.2)},
        transcripts=(Transcript("a session", (TranscriptLine(0.1, "client", "{}"),)),),
    )
    defaults = {"test": test, "target": "local", "infrastructure": "here", "subject": "isolation", "result": result}
    return CheckRecord(**{**defaults, "started_at": STARTED, "took_s": 1.5, "rerun": "pytest x", **changes})


def test_a_check_reads_back_as_it_was_written(tmp_path):
    path = write_check(tmp_path, record())
    assert path.parent == tmp_path / "checks"
    assert path.name.startswith("test-isolation-interleaved-")
    problems: list[str] = []
    assert read_checks(tmp_path, problems) == (record(),)
    assert problems == []


def test_tests_that_differ_only_in_signs_or_target_have_files_of_their_own(tmp_path):
    for test in ("a.py::test_x[a-b]", "a.py::test_x[a_b]"):
        for target in ("local", "docker"):
            write_check(tmp_path, record(test=test, target=target))
    assert len(read_checks(tmp_path, [])) == 4


def test_checks_come_in_the_order_they_began(tmp_path):
    for second in (3, 1, 2):
        write_check(tmp_path, record(test=f"t.py::test_{second}", started_at=STARTED.replace(second=second)))
    assert [check.started_at.second for check in read_checks(tmp_path, [])] == [1, 2, 3]


def test_a_damaged_file_is_named_and_the_others_are_read(tmp_path):
    write_check(tmp_path, record())
    (tmp_path / "checks" / "broken.json").write_text("{")
    (tmp_path / "checks" / "other.json").write_text("[]")
    (tmp_path / "checks" / "short.json").write_text(json.dumps({"test": "x"}))
    (tmp_path / "checks" / ".half.json.tmp").write_text("{")
    problems: list[str] = []
    assert read_checks(tmp_path, problems) == (record(),)
    assert [problem.split(" cannot")[0] for problem in problems] == [
        "the check checks/broken.json",
        "the check checks/other.json",
        "the check checks/short.json",
    ]


def test_a_run_without_checks_has_none(tmp_path):
    assert read_checks(tmp_path, []) == ()


@pytest.mark.parametrize(
    ("sweeps", "checks", "outcome"),
    [
        (Outcome.MET, [], "met"),
        (None, [], "inconclusive"),
        (None, ["met", "skipped"], "met"),
        (None, ["skipped"], "inconclusive"),
        (Outcome.MET, ["met", "missed", "inconclusive"], "missed"),
        (Outcome.MET, ["inconclusive"], "inconclusive"),
        (Outcome.MISSED, ["met"], "missed"),
        (Outcome.INCONCLUSIVE, ["met"], "inconclusive"),
    ],
)
def test_the_outcome_of_a_run_counts_checks_that_were_not_skipped(sweeps, checks, outcome):
    assert combine_with_checks(sweeps, [record(name) for name in checks]) == outcome


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_words_of_a_server_can_be_kept(headline, text):
    result = CheckResult(
        CheckOutcome.MISSED, headline, transcripts=(Transcript("t", (TranscriptLine(0.0, "server", text),)),)
    )
    assert CheckResult.from_json(json.loads(json.dumps(result.to_json()))) == result
