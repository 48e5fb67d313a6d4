"""The protocol comparison: what may be said of ws against http, and where it is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cells import a_cell, a_summary, an_slo
from report_samples import a_run, a_sweep, latency, measured

from pytest_openenv_scale.analysis.axes import ProtocolComparison, compare_modes
from pytest_openenv_scale.config.search import SearchPlan
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.reporting.content.study_tables import HTTP_FOOTNOTE, protocol_notes, ratio_text
from pytest_openenv_scale.reporting.json import junit_properties, run_document, run_json
from pytest_openenv_scale.reporting.markdown.run import report_markdown, step_summary
from pytest_openenv_scale.reporting.text.overview import run_lines, summary_lines
from pytest_openenv_scale.results.cell import ClientFinding
from pytest_openenv_scale.results.outcome import ErrorCount, WarmUp
from pytest_openenv_scale.verdict.sweep import SweepView, view_sweep

PLACE = Path(".openenv-results/run")
BUSY = (ClientFinding("cpu", "a load process used 99% of a core"),)
LATE = (ClientFinding("http_lag", "HTTP answers were seen late, p50 12 ms and p99 80 ms"),)


EPISODES = (WarmUp("ws", steps=3, same_episode=True), WarmUp("http", steps=3, same_episode=True))
NO_EPISODES = (EPISODES[0], WarmUp("http", steps=3, same_episode=False))


def passing(batch: int, mode: str, **fields) -> CellSummary:
    return of_mode(measured(batch, **fields), mode)


def failing(batch: int, mode: str) -> CellSummary:
    late = (ErrorCount("reset", "timeout", None, batch // 2, "no answer within 10 s"),)
    return replace(passing(batch, mode, failed=batch // 2), errors=late)


def refused(batch: int, mode: str) -> CellSummary:
    return passing(batch, mode, failed=batch // 2)


def doubtful(batch: int, mode: str) -> CellSummary:
    return passing(batch, mode, findings=BUSY)


def of_mode(summary: CellSummary, mode: str) -> CellSummary:
    return replace(summary, cell=replace(summary.cell, mode=mode))


def a_view(*summaries: CellSummary, batches=(32, 128, 256), **record) -> SweepView:
    """A sweep judged by what was measured, with a curve per mode and wait."""
    base = a_sweep(measured(32)).record
    curves = tuple(dict.fromkeys(replace(summary.cell.curve, batches=batches) for summary in summaries))
    record = {"warm_ups": EPISODES, **record}
    described = replace(base, curves=curves, slos=(an_slo(success=0.95),) * len(curves), **record)
    return view_sweep(described, summaries)


def compared(*summaries: CellSummary, **record) -> ProtocolComparison:
    (comparison,) = compare_modes(a_view(*summaries, **record))
    return comparison


BOTH_LIMITED = (
    *(passing(batch, "ws") for batch in (32, 128)),
    failing(256, "ws"),
    passing(32, "http"),
    failing(128, "http"),
)
HTTP_DOUBTFUL = (
    *(passing(batch, "ws") for batch in (32, 128)),
    failing(256, "ws"),
    passing(32, "http"),
    doubtful(128, "http"),
)


def test_the_mode_that_holds_more_wins():
    comparison = compared(*BOTH_LIMITED)
    assert (comparison.ws.max_batch, comparison.http.max_batch, comparison.ratio, comparison.winner) == (
        128,
        32,
        4.0,
        "ws",
    )
    assert (comparison.ws.known, comparison.http.known) == ("exact", "exact")
    assert (comparison.ws.doubt, comparison.http.doubt, protocol_notes(comparison)) == (None, None, [])
    assert ratio_text(comparison) == "4"


@pytest.mark.parametrize("http", [False, None])
def test_nobody_wins_where_one_mode_holds_no_episode(http):
    warm_ups = (EPISODES[0], WarmUp("http", steps=3, same_episode=http))
    comparison = compared(*BOTH_LIMITED, warm_ups=warm_ups)
    assert (comparison.ws.max_batch, comparison.http.max_batch, comparison.ratio, comparison.winner) == (
        128,
        32,
        4.0,
        None,
    )
    assert (comparison.ws.episodes, comparison.http.episodes) == (True, http)
    assert compared(*BOTH_LIMITED, warm_ups=()).winner is None
    assert (
        dict(junit_properties(a_view(*BOTH_LIMITED, warm_ups=warm_ups)))["openenv_protocol_winner[wait=1]"] == "unknown"
    )


@pytest.mark.parametrize("mode", ["ws", "http"])
def test_nobody_wins_where_a_number_that_was_set_refused_the_rest(mode, golden):
    limits = {"ws": failing(256, "ws"), "http": failing(128, "http"), mode: refused(256 if mode == "ws" else 128, mode)}
    comparison = compared(
        *(each for each in BOTH_LIMITED if each.batch != limits[each.cell.mode].batch), *limits.values()
    )
    assert (comparison.ratio, comparison.winner) == (4.0, None)
    assert [result.mode for result in comparison.modes if result.cap == "capacity"] == [mode]
    golden(protocol_notes(comparison))


def test_a_cap_beyond_the_batch_that_failed_otherwise_is_none_of_the_comparison():
    beyond = compared(*BOTH_LIMITED, refused(256, "http"))
    assert (beyond.http.cap, beyond.winner) == (None, "ws")


def test_equal_limits_have_no_winner_but_a_word():
    comparison = compared(passing(32, "ws"), failing(128, "ws"), passing(32, "http"), failing(128, "http"))
    assert (comparison.ratio, comparison.winner) == (1.0, "equal")


def test_a_mode_that_was_never_brought_to_its_limit_is_open(golden):
    ws = [passing(batch, "ws") for batch in (32, 128, 256)]
    comparison = compared(*ws, passing(32, "http"), failing(128, "http"))
    assert (comparison.ws.known, comparison.winner, ratio_text(comparison)) == ("open", "ws", "≥ 8")
    golden(protocol_notes(comparison))


def test_two_open_modes_have_neither_winner_nor_ratio():
    comparison = compared(*(passing(batch, mode) for mode in ("ws", "http") for batch in (32, 128, 256)))
    assert (comparison.winner, ratio_text(comparison), len(protocol_notes(comparison))) == (None, "–", 2)


def test_nobody_wins_over_a_mode_that_was_inconclusive(golden):
    comparison = compared(*HTTP_DOUBTFUL)
    assert (comparison.http.max_batch, comparison.http.known, comparison.winner, ratio_text(comparison)) == (
        32,
        "inconclusive",
        None,
        "≤ 4",
    )
    assert (comparison.http.doubtful_batch, comparison.http.doubt.cause) == (128, "cpu")
    (note,) = protocol_notes(comparison)
    golden(note)


@pytest.mark.parametrize("stop", ["drift", "budget", "running"])
def test_a_search_that_was_cut_short_is_told_as_that(stop, golden):
    ws = [*BOTH_LIMITED[:3], failing(256, "ws")]
    summaries = [*ws, passing(32, "http"), failing(128, "http")]
    searches = {summary.cell.curve.id: SearchPlan(32, 512, repetitions=1) for summary in summaries}
    stops = {ws[0].cell.curve.id: "precision", summaries[-1].cell.curve.id: stop}
    comparison = compared(*summaries, searches=searches, stops=stops)
    assert (comparison.ws.known, comparison.http.known, comparison.winner) == ("exact", "inconclusive", None)
    assert (comparison.ws.cut_short, comparison.http.cut_short) == (None, stop)
    golden(protocol_notes(comparison))


def test_a_mode_that_holds_nothing_loses_without_a_ratio():
    comparison = compared(passing(32, "ws"), failing(128, "ws"), failing(32, "http"))
    assert (comparison.http.max_batch, comparison.http.known, comparison.ratio, comparison.winner) == (
        None,
        "exact",
        None,
        "ws",
    )


def test_an_open_mode_does_not_lose_against_an_exact_one_of_the_same_batch():
    comparison = compared(
        *(passing(batch, "http") for batch in (32, 128)), passing(32, "ws"), failing(128, "ws"), batches=(32, 128)
    )
    assert comparison.winner == "http"
    assert ratio_text(comparison) == "≤ 0.25"


def test_latencies_are_those_of_the_largest_batch_that_both_held():
    assert compared(*BOTH_LIMITED).batch == 32
    assert compared(*HTTP_DOUBTFUL).batch == 32
    assert compared(passing(32, "ws"), passing(128, "ws"), passing(32, "http"), passing(128, "http")).batch == 128
    assert compared(doubtful(32, "ws"), doubtful(32, "http")).batch is None


def test_those_that_are_left_of_a_batch_are_compared_with_nothing():
    quick = {"total": latency(0.1, 0.2, 16)}
    left = failing(32, "http")
    comparison = compared(passing(32, "ws"), replace(left, phases={**left.phases, **quick}))
    assert (comparison.batch, comparison.http.total_p99, comparison.http.success) == (None, None, None)


def test_latencies_are_the_worst_of_the_repetitions():
    slow = {"step": latency(1.5, 2.5, 32), "reset": latency(0.4, 0.5, 32), "total": latency(2, 3, 32)}
    repeated = replace(passing(32, "http"), repetition=2)
    repeated = replace(repeated, phases={**repeated.phases, **slow}, success_rate=0.97)
    repeated_cell = replace(passing(32, "ws"), repetition=2)
    comparison = compared(passing(32, "ws"), repeated_cell, passing(32, "http"), repeated, reps=2)
    assert (comparison.http.reset_p50, comparison.http.step_p50, comparison.http.step_p99) == (0.4, 1.5, 2.5)
    assert (comparison.http.total_p99, comparison.http.success) == (3, 0.97)
    assert comparison.ws.step_p50 == 1.002


def test_where_nothing_succeeded_in_both_there_are_no_latencies():
    nothing = of_mode(a_summary(32, failed=32, cell=a_cell(32)), "http")
    ws = passing(32, "ws")
    comparison = compared(ws, replace(nothing, cell=replace(ws.cell, mode="http")))
    assert comparison.batch is None
    assert (comparison.ws.step_p50, comparison.http.step_p50) == (None, None)


def test_each_wait_is_compared_by_itself():
    def at(summary, wait):
        return replace(summary, cell=replace(summary.cell, wait=wait))

    cells = [at(passing(32, mode), wait) for mode in ("ws", "http") for wait in (0.1, 1.0)]
    assert [comparison.wait for comparison in compare_modes(a_view(*cells))] == [0.1, 1.0]


@pytest.mark.parametrize("mode", ["ws", "http"])
def test_one_mode_alone_is_compared_with_nothing(mode):
    view = a_view(passing(32, mode))
    run = a_run(PLACE, view)
    assert compare_modes(view) == ()
    output = "\n".join(line.text for line in run_lines(run)) + report_markdown(run) + step_summary(run)
    assert "comparison" not in output
    assert run_document(run)["sweeps"][0]["protocols"] == []
    assert [name for name, _ in junit_properties(view) if "protocol" in name] == []


def test_a_mode_of_which_nothing_was_measured_is_not_compared():
    planned = a_view(passing(32, "ws"), passing(32, "http"))
    assert compare_modes(view_sweep(planned.record, [passing(32, "ws")])) == ()


# In every report

TABLE = [
    "  protocol comparison",
    "    target         wait  ws max  http max  ratio  winner",
    "  test_scale.py::test_holds_256_sessions",
    "    local-uvicorn   1 s     128        32      4  ws",
]


def test_the_terminal_shows_it_above_the_verdicts(golden):
    assert HTTP_FOOTNOTE not in "\n".join(line.text for line in summary_lines([a_view(*BOTH_LIMITED)], width=1000))
    warm_ups = (EPISODES[0], WarmUp("http", steps=3))
    lines = [line.text for line in summary_lines([a_view(*BOTH_LIMITED, warm_ups=warm_ups)])]
    at = lines.index(TABLE[0])
    assert lines[at : at + 4] == [*TABLE[:3], TABLE[3].removesuffix("ws") + "–"]
    golden(lines[at + 4])
    assert HTTP_FOOTNOTE in " ".join(" ".join(lines[at:]).split())
    assert " ".join(lines).count("cannot hold an episode") == 1


@pytest.mark.parametrize("width", [60, 80, 110])
@pytest.mark.parametrize("encoding", [None, "ascii"])
def test_no_line_of_it_is_wider_than_the_terminal(width, encoding):
    view = a_view(*HTTP_DOUBTFUL, infrastructure="a-rather-long-name-of-a-cluster-somewhere.example.org")
    lines = [line.text for line in summary_lines([view], width=width, encoding=encoding)]
    assert "protocol comparison" in " ".join(lines)
    assert max(map(len, lines)) <= width


def test_a_whole_run_ends_with_it():
    text = "\n".join(line.text for line in run_lines(a_run(PLACE, a_view(*BOTH_LIMITED))))
    assert "\n".join(TABLE) in text


@pytest.mark.parametrize("render", [report_markdown, step_summary])
def test_markdown_and_the_github_summary_show_it_after_the_verdicts(golden, render):
    text = render(a_run(PLACE, a_view(*HTTP_DOUBTFUL, warm_ups=NO_EPISODES)))
    head, _, rest = text.partition("## Protocol comparison\n")
    assert "## Verdicts" in head
    table, _, after = rest.strip().partition("\n\n")
    heads, _, row = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    cells = dict(zip(heads, row, strict=True))
    assert (cells["ws max"], cells["http max"], cells["ratio"], cells["winner"]) == ("128", "≥ 32", "≤ 4", "–")
    assert (cells["at batch"], cells["ok ws / http"]) == ("32", "100.0 / 100.0 %")
    golden([line for line in after.splitlines() if line.startswith("- local")])
    assert text.count("cannot hold an episode") == 1


def test_json_has_every_figure():
    (sweep,) = json.loads(run_json(a_run(PLACE, a_view(*BOTH_LIMITED))))["sweeps"]
    (comparison,) = sweep["protocols"]
    assert (comparison["wait"], comparison["ratio"], comparison["winner"], comparison["batch"]) == (1.0, 4.0, "ws", 32)
    assert comparison["ws"]["max_batch"] == 128
    assert set(comparison["http"]) == {
        *("mode", "outcome", "max_batch", "known", "success"),
        *("reset_p50", "step_p50", "step_p99", "total_p99", "doubtful_batch", "doubt", "episodes", "cap", "cut_short"),
    }
    assert comparison["notes"] == []


def test_junit_has_winner_and_ratio_per_wait():
    properties = dict(junit_properties(a_view(*HTTP_DOUBTFUL)))
    assert properties["openenv_protocol_winner[wait=1]"] == "unknown"
    assert properties["openenv_protocol_ratio[wait=1]"] == "≤ 4"
