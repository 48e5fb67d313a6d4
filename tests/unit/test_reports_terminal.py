"""Golden tests of the terminal: what is printed, sign by sign, at a fixed width."""

from dataclasses import replace
from pathlib import Path

import pytest
from cells import an_slo, stats
from hypothesis import given
from hypothesis import strategies as st
from report_samples import TEST, a_run, a_sweep, doubtful_sweep, measured, refused_sweep

from pytest_openenv_scale.analysis.compare import compare_runs
from pytest_openenv_scale.config.limits import parse_fail_on
from pytest_openenv_scale.reporting import cell_line, curve_lines, failure_text, summary_lines, sweep_lines
from pytest_openenv_scale.reporting.content.comparison import comparison_headline
from pytest_openenv_scale.reporting.content.verdicts import stop_words
from pytest_openenv_scale.reporting.text.failure import failure_section
from pytest_openenv_scale.reporting.text.page import Line
from pytest_openenv_scale.reporting.text.sweep import BlockStyle
from pytest_openenv_scale.results.outcome import ErrorCount
from pytest_openenv_scale.verdict.sweep import SweepView


def text(lines):
    return "\n".join(line.text for line in lines)


def test_a_missed_curve_at_120_columns(golden):
    golden(text(sweep_lines(refused_sweep(), width=120)))


def test_an_inconclusive_curve_at_80_columns_of_ascii(golden):
    golden(text(sweep_lines(doubtful_sweep(), width=80, encoding="ascii")))


def test_without_details_nothing_tells_how_sure_and_how_costly_it_is(golden):
    golden(text(sweep_lines(refused_sweep(), width=100, style=BlockStyle(details=False, refusals=False))))


def test_the_message_of_a_failing_test_is_the_verdict_what_refused_and_what_to_do(golden):
    golden(failure_text(refused_sweep(), width=110))
    golden(failure_text(doubtful_sweep(), "the run latest cannot be read", width=110))


def test_curves_that_failed_alike_are_told_in_one_line(golden):
    refused, met = refused_sweep(), a_sweep(measured(8))
    (missed,) = refused.curves
    longer = replace(missed, curve=replace(missed.curve, wait=5.0))
    golden(failure_text(replace(refused, curves=(missed, longer)), width=110))
    golden(failure_text(replace(refused, curves=(*met.curves, missed)), width=110).splitlines()[0])


def test_a_regression_is_the_first_line_where_no_limit_is_missed(golden):
    met, slower = a_sweep(measured(8), measured(16)), a_sweep(measured(8, slower=2.0), measured(16, slower=2.0))
    then, now = a_run(Path("then"), met), a_run(Path("now"), slower)
    comparison = compare_runs(then, now, parse_fail_on("total_p99:+10%"))
    compared = replace(slower, record=replace(slower.record, comparison=comparison))
    golden(failure_text(compared, width=110))
    assert comparison_headline(comparison) in failure_section(compared, width=400)


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_summary_of_a_run_is_a_table_with_a_line_for_each_curve(golden, width):
    golden(text(summary_lines([refused_sweep(), doubtful_sweep()], width=width)), f"{width} columns")


def failing_sweep(label: str, *waits: float) -> SweepView:
    """A sweep of three batches for each wait, the last of which is refused by a server with a long log."""
    one = refused_sweep(reps=1)
    (view,) = one.curves
    log = "\n".join(f"{label} line {number}" for number in range(50))
    summaries = tuple(replace(cell, log_tail=cell.log_tail and log) for cell in view.summaries)
    curves = [replace(view.curve, infrastructure=label, wait=wait) for wait in waits]
    record = replace(one.record, infrastructure=label, curves=tuple(curves), slos=one.record.slos * len(waits))
    return SweepView(record, tuple(replace(view, curve=curve, summaries=summaries) for curve in curves), one.outcome)


def printed(*views: SweepView) -> list[str]:
    """What a run prints of sweeps that failed, between pytest's own lines, the four of the header and the end aside."""
    lines = [cell_line(summary, width=100) for view in views for summary in view.summaries]
    for view in views:
        lines += [Line(line, {}) for line in failure_text(view, width=100).splitlines()]
    for view in views:
        lines += [*sweep_lines(view, width=100, style=BlockStyle(details=False, refusals=False)), Line("", {})]
    return [line.text for line in (*lines, *(summary_lines(views, width=100) if len(views) > 1 else ()))]


def test_a_failing_test_of_three_batches_is_told_in_35_lines():
    assert len(printed(failing_sweep("local", 1.0))) + 4 <= 35


def test_five_failing_targets_with_two_waits_are_told_in_250_lines_with_those_of_pytest():
    views = [failing_sweep(label, 0.1, 1.0) for label in ("local", "local-uvicorn", "docker", "envoy-1", "envoy-3")]
    header, titles_and_ends, of_each_test = 8, 5, 3
    assert len(printed(*views)) + 4 + header + titles_and_ends + of_each_test * len(views) <= 250
    assert max(map(len, printed(*views))) <= 120


def test_there_is_no_summary_of_nothing():
    assert summary_lines([]) == []


def test_failures_no_refusal_explains_are_told_as_they_are(golden):
    error = ErrorCount("connect", "client_limit", "EMFILE", 3, "too many\nopen files")
    sweep = a_sweep(replace(measured(8, client_limited=3), errors=(error,)))
    golden(failure_text(sweep))


def test_the_log_and_what_refused_are_shown_once_for_several_curves():
    sweep = refused_sweep(reps=1)
    twice = replace(sweep, curves=sweep.curves * 2)
    assert text(sweep_lines(twice)).count("server log") == 1
    assert text(sweep_lines(twice)).count("CAPACITY_REACHED at 200 sessions") == 1


def test_the_log_of_a_server_is_printed_without_its_colours():
    sweep = refused_sweep(reps=1)
    cells = tuple(replace(cell, log_tail="\x1b[31mERROR\x1b[0m full\a") for cell in sweep.summaries)
    view = replace(sweep.curves[0], summaries=cells)
    assert "    ERROR full?" in text(curve_lines(sweep.record, view)).splitlines()


def test_a_curve_of_which_nothing_was_measured_has_no_table():
    block = text(sweep_lines(a_sweep(batches=(1, 8))))
    assert "max batch unknown" in block
    assert "ok %" not in block


def test_a_curve_that_met_everything_shows_neither_log_nor_rerun(golden):
    block = text(sweep_lines(a_sweep(measured(8))))
    golden(block)
    assert "rerun" not in block
    assert "server log" not in block


def test_a_curve_that_ended_early_says_so():
    cells = measured(4), measured(8, failed=4), measured(16, failed=12)
    sweep = a_sweep(*cells, batches=(4, 8, 16, 32))
    (view,) = sweep.curves
    assert (view.verdict.stopped, view.verdict.unmeasured) == ("two_failing", (32,))
    assert f"  {stop_words(view.verdict)}" in text(sweep_lines(sweep)).splitlines()


def test_lines_are_coloured_by_outcome_and_batches_that_failed_are_red():
    lines = sweep_lines(refused_sweep(reps=1), width=120)
    assert {line.text.split()[0] for line in lines if line.markup.get("red")} == {"256", "✗"}
    assert any(line.markup.get("green") for line in sweep_lines(a_sweep(measured(8))))
    assert any(line.markup.get("yellow") for line in sweep_lines(doubtful_sweep()))


def test_the_rerun_command_is_narrowed_to_the_curve_among_several():
    sweep = doubtful_sweep()
    (view,) = sweep.curves
    other = replace(view.curve, wait=0.1, mode="http")
    command = f"pytest {TEST} --openenv-waits 0.1,1 --openenv-seed 3"
    record = replace(sweep.record, curves=(view.curve, other), slos=sweep.record.slos * 2, rerun=command)
    rerun = f"  rerun: pytest {TEST} --openenv-seed 3 --openenv-waits 1 --openenv-modes ws"
    assert rerun in text(curve_lines(record, view)).splitlines()


def test_a_finished_cell_is_one_line(golden):
    cell = measured(256, failed=56, repetition=2)
    line = cell_line(cell, width=130)
    golden(line.text)
    assert line.markup
    assert not cell_line(measured(8)).markup
    assert len(cell_line(cell, width=70).text) == 70


def test_a_limit_that_was_asked_for_keeps_its_column_where_the_width_does_not_do():
    cells = (measured(8, hosts=2, hosts_available=2),)
    for slo, is_shown in ((an_slo(success=0.9), False), (an_slo(hosts=2), True)):
        lines = sweep_lines(a_sweep(*cells, slo=slo), width=80)
        titles = next(line.text for line in lines if "ok %" in line.text)
        assert ("hosts" in titles) is is_shown


NUMBERS = st.none() | st.floats(0, 604_800)
BATCHES = st.integers(1, 1_000_000)


@given(
    batches=st.lists(BATCHES, min_size=1, max_size=3, unique=True),
    times=st.lists(NUMBERS, min_size=6, max_size=6),
    share=st.none() | st.floats(0, 1),
    rate=NUMBERS,
    hosts=st.none() | st.integers(1, 10_000),
    reps=st.integers(1, 3),
    width=st.integers(60, 160),
    encoding=st.sampled_from(["utf-8", "ascii"]),
)
def test_no_line_is_wider_than_the_terminal(batches, times, share, rate, hosts, reps, width, encoding):
    names = ("connect", "reset", "step", "total", "overhead", "queue")
    phases = {name: stats(time) for name, time in zip(names, times, strict=True) if time is not None}
    figures = {"phases": phases, "success_rate": share, "requests_per_second": rate, "hosts": hosts}
    cells = [replace(measured(batch), repetition=n + 1, **figures) for batch in batches for n in range(reps)]
    sweep = a_sweep(*cells, slo=an_slo(total_p99=2.5), rerun=None)
    block = sweep_lines(sweep, width=width, encoding=encoding)
    table = summary_lines([sweep], width=width, encoding=encoding)
    assert max(len(line.text) for line in (*block, *table)) <= width


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_batch_success_open_and_the_mark_stay_at_every_width(width):
    lines = [line.text for line in sweep_lines(refused_sweep(reps=1), width=width)]
    at = next(index for index, line in enumerate(lines) if "ok %" in line)
    assert lines[at].split()[:4] == ["batch", "ok", "%", "open"]
    assert lines[at + 3].split()[:3] == ["256", "78.1", "200"]
    assert "✗" in lines[at + 3]
