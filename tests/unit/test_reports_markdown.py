"""The Markdown report and the GitHub step summary, sign by sign."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_samples import a_run, a_sweep, doubtful_sweep, measured, refused_sweep

from pytest_openenv_scale.reporting import append_step_summary
from pytest_openenv_scale.reporting.content.refusals import refusal_sentence
from pytest_openenv_scale.reporting.content.tables import failures_table
from pytest_openenv_scale.reporting.markdown.run import (
    SUMMARY_BYTES,
    code_block,
    escape,
    inline_code,
    report_markdown,
    step_summary,
)
from pytest_openenv_scale.results.outcome import ErrorCount

FOLDER = Path("results/20261121T120000.000Z-3fa9")


def test_the_report_of_a_run(golden):
    golden(report_markdown(a_run(FOLDER, doubtful_sweep())))


def test_verdicts_come_before_curves_and_curves_before_circumstances():
    report = report_markdown(a_run(FOLDER))
    order = [
        "## Verdicts",
        "**✗ SLO missed",
        "Failed sessions:",
        "## Targets",
        "## Plan and workload",
        "## Environment",
    ]
    places = [report.index(part) for part in order]
    assert places == sorted(places)


def test_a_refusal_stands_with_its_remedy():
    sweep = refused_sweep()
    (refusal,) = sweep.curves[0].verdict.refused
    assert f"- {escape(refusal_sentence(refusal))}" in report_markdown(a_run(FOLDER, sweep)).splitlines()


def test_a_message_that_several_rows_have_in_common_is_written_once():
    rows = failures_table(refused_sweep().curves[0]).texts
    assert [row[-1] for row in rows] == [rows[0][-1], "as above", "as above"]
    assert "capacity" in rows[0][-1]


def test_failures_are_listed_by_phase_and_type():
    lines = report_markdown(a_run(FOLDER, refused_sweep())).splitlines()
    failures = [line.split("|")[1:-1] for line in lines if "CAPACITY_REACHED |" in line]
    assert [cell.strip() for cell in failures[1]] == [
        *("256", "2", "reset", "capacity", "CAPACITY_REACHED", "54", "as above")
    ]


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ("interrupted", "the run was interrupted"),
        ("failed", "the run failed"),
        ("running", "the run is still going on"),
    ],
)
def test_a_run_that_is_not_whole_says_so_on_top(status, says):
    report = report_markdown(a_run(FOLDER, status=status, problems=["part-3.parquet: it is damaged"]))
    assert report.index(says) < report.index("part-3.parquet: it is damaged") < report.index("## Verdicts")


def test_a_run_of_which_nothing_was_measured_can_be_reported():
    run = replace(a_run(FOLDER, status="interrupted"), sweeps=())
    assert "nothing was measured" in report_markdown(run)


def test_what_a_server_wrote_is_text_and_no_markup():
    assert escape("a|b *c* _d_ e_f <img src=x> 1 < 2 [l](u) `k` &amp;") == (
        r"a\|b \*c\* \_d\_ e_f \<img src=x> 1 < 2 \[l\](u) \`k\` \&amp;"
    )


def test_a_message_with_a_pipe_and_line_ends_stays_in_its_cell():
    cell = replace(measured(8, failed=1), errors=(ErrorCount("step", "environment", None, 1, "a|b\n| c"),))
    report = report_markdown(a_run(FOLDER, a_sweep(cell)))
    (line,) = [line for line in report.splitlines() if "environment |" in line]
    assert r"a\|b \| c" in line


def test_code_survives_backticks_and_pipes():
    assert inline_code("a`b") == "`` a`b ``"
    assert inline_code("t[a|b]", in_table=True) == r"`t[a\|b]`"
    assert code_block("```\nx")[0] == "````"


@given(st.text())
def test_any_text_is_one_line_without_a_bare_pipe(value):
    escaped = escape(value)
    assert "\n" not in escaped
    assert "|" not in escaped.replace("\\\\", "").replace("\\|", "")


def test_every_row_of_every_table_has_the_columns_of_its_head():
    report = report_markdown(a_run(FOLDER, refused_sweep(), doubtful_sweep()))
    widths: set[int] = set()
    for line in report.splitlines():
        if not line.startswith("|"):
            assert len(widths) <= 1
            widths = set()
        else:
            widths.add(line.replace(r"\|", "").count("|"))


def test_the_step_summary_is_appended(tmp_path):
    file = tmp_path / "summary.md"
    file.write_text("before\n")
    assert append_step_summary(a_run(FOLDER), {"GITHUB_STEP_SUMMARY": str(file)}) == file
    assert file.read_text().startswith("before\n\n# OpenEnv scaling")
    assert "## Verdicts" in file.read_text()


def test_there_is_no_step_summary_outside_github():
    assert append_step_summary(a_run(FOLDER), {}) is None


def test_a_step_summary_that_others_filled_is_left_alone(tmp_path):
    file = tmp_path / "summary.md"
    file.write_bytes(b"x" * (SUMMARY_BYTES - 100))
    assert append_step_summary(a_run(FOLDER), {"GITHUB_STEP_SUMMARY": str(file)}) is None
    assert file.stat().st_size == SUMMARY_BYTES - 100


@pytest.mark.parametrize("limit", [700, 2_000, 5_000, 30_000])
def test_a_step_summary_keeps_its_limit_and_says_what_it_left_out(limit):
    run = a_run(FOLDER, *[refused_sweep() for _ in range(5)])
    summary = step_summary(run, limit)
    assert len(summary.encode()) <= limit
    assert summary.count("```") % 2 == 0
    assert ("GitHub takes no more" in summary) is (limit < 30_000)


def test_a_step_summary_of_many_curves_counts_those_left_out():
    summary = step_summary(a_run(FOLDER, *[refused_sweep() for _ in range(5)]), 15_000)
    shown_curves = summary.count("**✗ SLO missed")
    assert 0 < shown_curves < 5
    assert f"*{5 - shown_curves} curve" in summary
