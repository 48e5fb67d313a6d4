"""Every table of a study, sign by sign, in Markdown and on the terminal; and the numbers behind the texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cells import an_slo
from report_samples import a_run
from study_samples import (
    DOCKER,
    ENVOY_1,
    ENVOY_2,
    ENVOY_4,
    SLURM_4,
    SPACE_BASIC,
    SPACE_UPGRADE,
    UVICORN,
    a_run_of,
    a_study,
    sample,
)

from pytest_openenv_scale.analysis.study import Study, join_runs
from pytest_openenv_scale.reporting import study_lines
from pytest_openenv_scale.reporting.content import study_tables as tables_module
from pytest_openenv_scale.reporting.content.study_tables import study_tables
from pytest_openenv_scale.reporting.content.tables import MISSING, Table
from pytest_openenv_scale.reporting.markdown import table_section
from pytest_openenv_scale.reporting.markdown.run import report_markdown
from pytest_openenv_scale.results.outcome import ErrorCount

GOLDEN = Path(__file__).parent / "golden"
SAMPLES = (UVICORN, DOCKER, SPACE_BASIC, SPACE_UPGRADE, SLURM_4, ENVOY_1, ENVOY_2, ENVOY_4)


def table(study: Study, key: str) -> Table:
    return next(table for table in study_tables(study) if table.key == key)


def table_rows(study: Study, key: str) -> list[tuple[str, ...]]:
    return [tuple(cell.text for cell in row) for row in table(study, key).rows]


def test_every_table_in_markdown():
    lines = [line for table in study_tables(a_study(*SAMPLES)) for line in table_section(table)]
    assert "\n".join(lines) == (GOLDEN / "study_tables.md").read_text(encoding="utf-8")


def test_a_study_on_the_terminal():
    lines = study_lines(a_study(*SAMPLES), width=120)
    assert "\n".join(line.text for line in lines) + "\n" == (GOLDEN / "study.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [60, 80, 110])
@pytest.mark.parametrize("encoding", [None, "ascii"])
def test_no_line_is_wider_than_the_terminal(width, encoding):
    lines = [line.text for line in study_lines(a_study(*SAMPLES), width=width, encoding=encoding)]
    assert max(map(len, lines)) <= width
    assert encoding is None or all(line.isascii() for line in lines)


def test_what_was_not_measured_is_a_dash_and_what_holds_nothing_is_none():
    study = a_study(sample(batches={8: (0.5, 1.0)}), sample("local-docker", wait=5.0))
    assert table_rows(study, "max-batch") == [
        ("local-uvicorn", "ws", "none", "–"),
        ("local-docker", "ws", "–", "≥ 128"),
    ]
    assert table(study, "max-batch").rows[0][2].number is None
    assert table(study, "max-batch").rows[0][3] == MISSING
    (nothing, _) = table_rows(study, "summary")
    assert nothing == ("local-uvicorn", "ws", "1 s", "none", "2", "–", "–", "–", "800 ms", "–", "–")
    assert [row[0] for row in table_rows(study, "latency")] == ["local-docker"]


def test_numbers_stand_behind_texts():
    study = a_study(UVICORN)
    summary = table(study, "summary")
    (row,) = summary.select(mode="ws", wait="5 s")
    assert summary.value(row, "max batch").number == 2048
    assert summary.value(row, "batch per core").number == 256
    assert summary.value(row, "total p99").number == pytest.approx(5 + 1.13 * 1.04)
    assert summary.value(row, "memory per session").number == pytest.approx(60_000)
    ((_, _, ws, http, ratio, *_),) = table(study, "protocols").rows
    assert (ws.number, http.number, ratio.number) == (2048, 128, 16)


@pytest.mark.parametrize(
    "batches",
    [
        {8: (1.0, 0.1), 16: (1.0, 0.1)},
        {8: (0.97, 0.1), 16: (0.96, 0.1), 32: (0.5, 1.0)},
        {8: (1.0, 0.1), 16: (0.0, 0.0)},
        {8: (0.5, 0.1), 16: (1.0, 0.1)},
    ],
)
def test_what_became_of_each_batch(golden, batches):
    batches = {batch * 100: outcome for batch, outcome in batches.items()}
    golden([row[-1] for row in table_rows(a_study(sample(batches=batches)), "scaling")])


def test_a_batch_too_slow_is_above_capacity_though_all_of_it_succeeds():
    study = a_study(sample(batches={8: (1.0, 0.1), 16: (1.0, 3.0)}, slo=an_slo(total_p99=2.0)))
    assert [row[-1] for row in table_rows(study, "scaling")] == ["max reliable", "above capacity"]


def test_a_batch_nobody_can_judge_is_inconclusive():
    run = a_run_of(sample(batches={8: (1.0, 0.1)}))
    (view,) = run.sweeps
    (curve,) = view.curves
    (cell,) = curve.verdict.cells
    doubtful = replace(curve, verdict=replace(curve.verdict, cells=(replace(cell, passed=None),), max_batch=None))
    study = join_runs([replace(run, sweeps=(replace(view, curves=(doubtful,)),))])
    assert table_rows(study, "scaling")[0][-1] == "inconclusive"
    assert table_rows(study, "summary")[0][3] == "unknown"


def test_errors_are_added_up_over_batches_and_repetitions():
    study = a_study(sample(batches={100: (0.9, 0.1), 200: (0.5, 1.0)}, reps=2))
    (row,) = table_rows(study, "errors")
    assert row[2:8] == ("reset", "capacity", "CAPACITY_REACHED", "220", "100.0 %", "100 to 200")


def test_the_most_frequent_errors_are_listed_and_the_others_counted(golden, monkeypatch):
    monkeypatch.setattr(tables_module, "_MOST_FAILURES", 2)
    run = a_run_of(sample(batches={10: (0.1, 0.1)}))
    (view,) = run.sweeps
    (curve,) = view.curves
    ways = tuple(
        ErrorCount("step", "environment", code, count) for code, count in (("A", 1), ("B", 5), ("C", 2), ("D", 1))
    )
    summary = replace(curve.summaries[0], errors=ways)
    study = join_runs([replace(run, sweeps=(replace(view, curves=(replace(curve, summaries=(summary,)),)),))])
    assert [row[4] for row in table_rows(study, "errors")] == ["B", "C"]
    golden(table(study, "errors").notes[0])


def test_what_a_server_says_is_no_markup():
    hostile = ("reset", "environment", "<b>|`x`", "[link](x) | \x1b[31m <script>alert(1)</script>\n# head")
    report = report_markdown(a_study(sample(batches={10: (0.5, 0.1)}, error=hostile), sample("local-docker")))
    (line,) = [line for line in report.splitlines() if "alert" in line]
    assert "\\<script>" in line
    assert "\x1b" not in report
    assert line.count(" | ") == 8


def test_a_study_without_anything_measured_says_so_and_has_no_tables():
    run = a_run_of(sample(curves={("ws", 1.0): {}}))
    assert "nothing was measured" in report_markdown(join_runs([run]))
    assert not table(join_runs([run]), "latency").rows
    assert all(not table.rows for table in study_tables(join_runs([])))


def test_no_table_of_a_run_stands_there_twice(golden, tmp_path):
    report = report_markdown(a_run_of(UVICORN, SPACE_BASIC, path=tmp_path))
    heads = [line for line in report.splitlines() if line.startswith("## ")]
    assert len(set(heads)) == len(heads)
    golden([head for head in heads if "·" not in head and head != "## Findings"])


def test_the_table_of_one_curve_is_that_of_its_section(tmp_path):
    report = report_markdown(a_run(tmp_path, *a_run_of(sample(batches={8: (1.0, 0.1), 16: (0.5, 1.0)})).sweeps))
    assert "## Results" in report
    assert "## Latency at max batch" not in report
    assert "| ✗ above capacity: success 50.0 % < 95 % |" in report


def test_two_arrivals_of_one_target_are_told_apart_by_name_and_beside_their_curves():
    study = a_study(sample(arrival="hold"), sample(arrival="rate=50"))
    assert study.infrastructures == ("local-uvicorn (hold)", "local-uvicorn (rate=50)")
    for key in ("summary", "latency", "scaling"):
        arrivals = [table(study, key).value(row, "arrival").text for row in table(study, key).rows]
        assert list(dict.fromkeys(arrivals)) == ["–", "rate=50"]
    lines = [line.text for line in study_lines(study, width=120)]
    assert any("local-uvicorn (rate=50) · ws · wait 1 s · rate=50: " in line for line in lines)


def test_where_every_batch_is_held_no_table_names_an_arrival():
    assert not any("arrival" in table.heads for table in study_tables(a_study(*SAMPLES)))
