"""Golden tests of the terminal: what is printed, sign by sign, at a fixed width."""

from dataclasses import replace

import pytest
from cells import an_slo, stats
from hypothesis import given
from hypothesis import strategies as st
from report_samples import TEST, a_sweep, doubtful_sweep, measured, refused_sweep

from pytest_openenv_scale.reporting import cell_line, curve_lines, summary_lines, sweep_failure_text, sweep_lines
from pytest_openenv_scale.reporting.content.verdicts import stop_words
from pytest_openenv_scale.results.outcome import ErrorCount, Outcome
from pytest_openenv_scale.verdict.sweep import SweepView

MISSED = r"""
local-uvicorn · ws · wait 1 s · hold · 3 reps · 2 cores                           test_scale.py::test_holds_256_sessions
                          connect       reset           step          total         overhead
  batch   ok %  open      p50/p99     p50/p99        p50/p99        p50/p99  ± p99       p99  rps
     32  100.0    32   9 /  15 ms   2 /  4 ms  1.00 / 1.06 s  1.01 / 1.07 s   ±2 %     24 ms   30  ✓
    128  100.0   128  31 /  55 ms   8 / 13 ms  1.00 / 1.06 s  1.03 / 1.11 s   ±2 %     62 ms  118  ✓
    256   78.1   200  60 / 113 ms  15 / 27 ms  1.00 / 1.06 s  1.06 / 1.17 s   ±2 %    118 ms  185  ✗
         success 78.1 % < 95 %
  each figure is the worst of 3 repetitions; ± p99 is half their range of total p99; p99 of 32 sessions ≈ max
  max batch 128 (64 per core; 200 were open at batch 256)
  batch 128 over 3 repetitions: success 100.0 %, total p99 1.06–1.11 s (75 % confidence)
  first limit broken: success 78.1 % < 95 % at batch 256, repetition 1 of 3 (56 of 256 failed: 56 capacity in reset)
  the server refused 56 sessions at batch 256: CAPACITY_REACHED at 200 sessions = 2 workers × 100 → 1. max_envs=256 in
    the target, per worker: connections split unevenly over 2, and one may get them all; 2. max_concurrent_envs=256 in
    create_app(...), where the app does not read MAX_CONCURRENT_ENVS; then ask for isolation too: pytest --pyargs
    pytest_openenv_scale.suite -m isolation --openenv-target local:app:app,max_envs=256,server=uvicorn
  ✗ SLO missed: max_batch ≥ 256, got 128 in 3 of 3 repetitions
  server log, last 3 lines:
    INFO:     127.0.0.1:50114 - "WebSocket /ws" [accepted]
    INFO:     connection open
    INFO:     connection closed
  rerun: pytest test_scale.py::test_holds_256_sessions --openenv-target local:app:app,server=uvicorn
"""

NARROW = r"""
local-uvicorn - ws - wait 1 s - hold - 1 rep - 2 cores
test_scale.py::test_holds_256_sessions
                        connect           step          total
  batch   ok %  open    p50/p99        p50/p99        p50/p99  hosts
      8  100.0     8  9 / 14 ms  1.00 / 1.01 s  1.01 / 1.02 s      2  +
     64  100.0    64  9 / 14 ms  1.00 / 1.01 s  1.01 / 1.02 s      2  ?
         the client was the limit
  not shown at this width: reset, overhead, rps
  p99 of 8 and 64 sessions ~ max
  max batch 8 (4 per core)
  batch 8: success 100.0 % (95 %: 63.1-100.0)
  ? SLO inconclusive: max_batch >= 64 is not decided, got 8: the client's CPU
    was 98 % busy (batch 64)
    no openenv.yaml in the root: the built-in environment was measured
  rerun: pytest test_scale.py::test_holds_256_sessions --openenv-target local:app:app,server=uvicorn
"""

FAILURE = r"""
SLO missed: max_batch ≥ 256, got 128 in 3 of 3 repetitions
  local-uvicorn · ws · wait 1 s · hold · 3 reps · 2 cores
  max batch 128 (64 per core; 200 were open at batch 256)
  first limit broken: success 78.1 % < 95 % at batch 256, repetition 1 of 3 (56 of 256 failed: 56 capacity in
    reset)
  success in the 3 repetitions: 78.1 %, 78.9 %, 78.1 %
  the server refused 56 sessions at batch 256: CAPACITY_REACHED at 200 sessions = 2 workers × 100 → 1.
    max_envs=256 in the target, per worker: connections split unevenly over 2, and one may get them all; 2.
    max_concurrent_envs=256 in create_app(...), where the app does not read MAX_CONCURRENT_ENVS; then ask for
    isolation too: pytest --pyargs pytest_openenv_scale.suite -m isolation --openenv-target
    local:app:app,max_envs=256,server=uvicorn
  server log, last 3 lines:
    INFO:     127.0.0.1:50114 - "WebSocket /ws" [accepted]
    INFO:     connection open
    INFO:     connection closed
  rerun: pytest test_scale.py::test_holds_256_sessions --openenv-target local:app:app,server=uvicorn
"""

SUMMARY = r"""
    target         mode  wait  max batch  per core    verdict
  test_scale.py::test_holds_256_sessions
    local-uvicorn  ws     1 s        128        64  ✗ missed: max_batch ≥ 256, got 128 in 3 of 3 repetitions
    local-uvicorn  ws     1 s          8         4  ? inconclusive
        max_batch ≥ 64 is not decided, got 8: the client's CPU was 98 % busy (batch 64)
"""


def text(lines):
    return "\n".join(line.text for line in lines)


def golden(picture):
    return picture.strip("\n")


def test_a_missed_curve_at_120_columns():
    assert text(sweep_lines(refused_sweep(), width=120)) == golden(MISSED)


def test_an_inconclusive_curve_at_80_columns_of_ascii():
    assert text(sweep_lines(doubtful_sweep(), width=80, encoding="ascii")) == golden(NARROW)


def test_the_message_of_a_failing_test_is_one_block():
    assert sweep_failure_text(refused_sweep(), width=110) == golden(FAILURE)


def test_the_summary_of_a_run_is_a_table_of_max_batch():
    assert text(summary_lines([refused_sweep(), doubtful_sweep()], width=110)) == golden(SUMMARY)


def test_there_is_no_summary_of_nothing():
    assert summary_lines([]) == []


def test_only_what_was_not_met_is_in_the_message_of_a_failing_test():
    met, missed = a_sweep(measured(8)), refused_sweep()
    both = SweepView(missed.record, (*met.curves, *missed.curves), Outcome.MISSED)
    assert sweep_failure_text(both) == sweep_failure_text(missed)


def test_failures_no_refusal_explains_are_told_as_they_are(golden):
    error = ErrorCount("connect", "client_limit", "EMFILE", 3, "too many\nopen files")
    sweep = a_sweep(replace(measured(8, client_limited=3), errors=(error,)))
    golden(sweep_failure_text(sweep).splitlines())


def test_the_same_log_is_shown_once_for_several_curves():
    sweep = refused_sweep(reps=1)
    twice = replace(sweep, curves=sweep.curves * 2)
    assert text(sweep_lines(twice)).count("server log") == 1
    assert sweep_failure_text(twice).count("server log") == 1


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
    assert f"    {stop_words(view.verdict)}" in text(sweep_lines(sweep)).splitlines()


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
