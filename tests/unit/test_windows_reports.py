"""A steady state in reports: its windows in one line and in a table, slots instead of sessions at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cells import an_slo, steady_windows
from hypothesis import given
from hypothesis import strategies as st
from report_samples import a_run, a_sweep, measured, steady, steady_sweep

from pytest_openenv_scale.analysis.study import study_of
from pytest_openenv_scale.core.formatting import text_range
from pytest_openenv_scale.metrics.windows import Window
from pytest_openenv_scale.reporting import cell_line, junit_properties, sweep_lines
from pytest_openenv_scale.reporting.content.study_tables import scaling_table
from pytest_openenv_scale.reporting.content.tables import (
    MOST_WINDOWS,
    check_windows_table,
    windows_tables,
)
from pytest_openenv_scale.reporting.content.windows import windows_sentences
from pytest_openenv_scale.reporting.json import run_document
from pytest_openenv_scale.reporting.markdown.run import curve_section
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult

RESULTS = Path("results")


def study_with(*summaries, **sweep):
    return study_of(a_run(RESULTS, a_sweep(*summaries, **sweep)))


def text(lines) -> str:
    return "\n".join(line.text for line in lines)


class TestOneLine:
    def test_a_curve_is_told_in_slots_with_a_line_of_what_its_windows_span(self, golden):
        golden(text(sweep_lines(steady_sweep(), width=120)))

    def test_only_judged_windows_count(self):
        slow_start = [
            window if window.judged else replace(window, step_p99_s=9.0, open_least=0) for window in steady_windows()
        ]
        (sentence,) = windows_sentences(a_sweep(steady(64, windows=tuple(slow_start))).curves[0])
        assert "step p99 12 to 15 ms" in sentence
        assert "open at least 63" in sentence

    def test_several_repetitions_are_one_line_of_all_they_span(self):
        larger = steady(64, repetition=2, windows=steady_windows(rss_bytes=400_000_000))
        (sentence,) = windows_sentences(a_sweep(steady(64), larger).curves[0])
        assert sentence.startswith("64 slots, 10 windows of 5 s in each of 2 repetitions: ")
        assert "memory 201 to 386 MiB" in sentence

    def test_what_no_window_tells_is_left_out(self):
        silent = tuple(replace(window, rss_bytes=None, step_p99_s=None) for window in steady_windows())
        (sentence,) = windows_sentences(a_sweep(steady(64, windows=silent)).curves[0])
        assert sentence.endswith(": success 99.0 to 100.0 %, open at least 63")

    def test_windows_that_tell_nothing_have_no_line(self):
        assert windows_sentences(a_sweep(steady(64, windows=(Window(0.0, 5.0, judged=True),))).curves[0]) == []

    def test_a_batch_that_is_no_steady_state_has_none(self):
        assert windows_sentences(a_sweep(measured(8)).curves[0]) == []

    @pytest.mark.parametrize(
        ("low", "high", "both"),
        [("12 ms", "15 ms", "12 to 15 ms"), ("12 ms", "12 ms", "12 ms"), ("980 ms", "1.20 s", "980 ms to 1.20 s")],
    )
    def test_a_range_has_its_unit_once_where_it_is_the_same(self, low, high, both):
        assert text_range(low, high) == both

    @given(slots=st.integers(1, 1_000_000), sessions=st.integers(1, 10_000_000), width=st.integers(60, 160))
    def test_no_line_is_wider_than_the_terminal(self, slots, sessions, width):
        sweep = a_sweep(steady(slots, sessions=sessions, failed=0), slo=an_slo(total_p99=2.5), rerun=None)
        assert max(len(line.text) for line in sweep_lines(sweep, width=width)) <= width

    @pytest.mark.parametrize("width", [60, 80, 100, 120])
    def test_slots_success_and_the_least_that_were_open_stay_at_every_width(self, width):
        lines = [line.text for line in sweep_lines(steady_sweep(), width=width)]
        at = next(index for index, line in enumerate(lines) if "slots" in line)
        figures = dict(zip(lines[at].replace("ok %", "ok").split(), lines[at + 1].split(), strict=False))
        assert (figures["slots"], figures["ok"], figures["least"]) == ("64", "99.5", "63")


class TestTable:
    def test_a_row_is_a_window_and_says_which_are_not_judged(self, golden):
        golden(
            curve_section(study_with(steady(64)).curves[0]).partition("over time")[2].partition("Failed sessions")[0]
        )

    def test_the_batches_on_either_side_of_max_batch_have_one_each_in_their_worst_repetition(self):
        study = study_with(
            *(steady(32, repetition=number) for number in (1, 2)),
            *(steady(64, repetition=number, failed=failed) for number, failed in ((1, 3), (2, 9))),
            *(steady(128, repetition=number, failed=failed) for number, failed in ((1, 900), (2, 800))),
        )
        assert [table.title for table in windows_tables(study.curves[0])] == [
            "64 slots, repetition 2 over time",
            "128 slots, repetition 1 over time",
        ]

    def test_what_no_window_tells_has_no_column(self):
        silent = tuple(replace(window, threads=None, descriptors=None) for window in steady_windows())
        (table,) = windows_tables(study_with(steady(64, windows=silent)).curves[0])
        assert not {"threads", "descriptors"} & set(table.heads)

    def test_of_a_long_run_the_ends_are_shown_and_what_lies_between_is_summed_up(self):
        many = steady_windows(seconds=14_400, ramp=60, width=60)
        (table,) = windows_tables(study_with(steady(64, windows=many)).curves[0])
        assert len(table.rows) < MOST_WINDOWS < len(many)
        times = [row[0].text for row in table.rows]
        assert (times[0], times[-1]) == ("ramp: 0 to 60", "drain: 14,400 to 14,402.5")
        assert table.notes[1].startswith(f"{len(many) - len(table.rows)} windows between are left out: step p99")

    def test_what_was_cut_off_in_its_ramp_has_no_drain(self):
        ramp = tuple(window for window in steady_windows() if window.start_s < 10)
        (table,) = windows_tables(study_with(steady(64, windows=ramp)).curves[0])
        assert [row[0].text for row in table.rows] == ["ramp: 0 to 5", "ramp: 5 to 10"]
        assert table.notes == ("ramp is not judged",)

    def test_the_scaling_table_shows_sessions_and_the_least_open_beside_success(self):
        table = scaling_table(study_with(steady(64)))
        (row,) = table.rows
        shown = [table.value(row, head).text for head in ("batch", "sessions", "success", "least open")]
        assert shown == ["64", "576", "99.5 %", "63"]
        assert "sessions" not in scaling_table(study_with(measured(8))).heads


SERIES = {
    "at_s": (5.0, 20.0, 40.0),
    "steps": (100, 100, 100),
    "step_p50_s": (0.009, 0.009, None),
    "step_p99_s": (0.012, 0.013, None),
    "rss_bytes": (210e6, 211e6, 212e6),
}
"""What a check keeps that lets sessions play on."""


class TestCheckSeries:
    def test_a_check_that_lets_sessions_play_on_has_the_same_table(self, golden):
        result = CheckResult(CheckOutcome.MISSED, "memory grew", series=SERIES)
        table = check_windows_table(result)
        golden([*(" | ".join(row) for row in ([*table.heads], *table.texts)), *table.notes])

    def test_a_check_without_windows_has_none(self):
        assert not check_windows_table(CheckResult(CheckOutcome.MET, "fine", series={"memory_bytes": (1.0, 2.0)}))


class TestElsewhere:
    def test_a_finished_cell_tells_slots_sessions_and_the_least_open(self):
        assert cell_line(steady(64)).text.startswith(
            "local-uvicorn · ws wait 1 s · 64 slots · 576 sessions · ok 99.5 % · open at least 63 · "
        )

    def test_windows_are_in_the_json_report(self):
        (curve,) = run_document(a_run(RESULTS, steady_sweep()))["sweeps"][0]["curves"]
        repetition = curve["cells"][0]["repetitions"][0]
        assert [Window.from_json(window) for window in repetition["windows"]] == [*steady_windows()]
        assert repetition["open_least"] == 63

    def test_a_junit_file_names_the_least_open_at_max_batch(self):
        assert dict(junit_properties(steady_sweep()))["openenv_open_least[ws,wait=1]"] == 63

    def test_sessions_that_no_figure_counts_are_told_by_the_number_of_those_that_some_do(self):
        stopped = replace(measured(300, failed=60), not_started=724)
        lines = text(sweep_lines(a_sweep(replace(stopped, cell=replace(stopped.cell, batch=1024, arrival="burst")))))
        assert "1,024" in lines
        assert "60 of 300 failed" in lines
        assert "sessions" in next(line for line in lines.splitlines() if "ok %" in line)
