"""What a searched curve is judged to be, and how that is told: the block, the page, the JSON, the comparison."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cells import NOON, an_slo
from compare_samples import a_measured_run
from report_samples import a_manifest, a_sweep, measured

from goldens import Golden
from pytest_openenv_scale.analysis.compare import compare_runs
from pytest_openenv_scale.analysis.run import Run
from pytest_openenv_scale.config.limits import Slo, parse_fail_on
from pytest_openenv_scale.config.search import SearchPlan
from pytest_openenv_scale.core.endpoint import ExitStatus
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.reporting.content.searches import search_sentences
from pytest_openenv_scale.reporting.content.verdicts import headline
from pytest_openenv_scale.reporting.content.wording import max_batch_sentence
from pytest_openenv_scale.reporting.json import run_document
from pytest_openenv_scale.reporting.markdown.run import report_markdown
from pytest_openenv_scale.reporting.text.sweep import curve_lines
from pytest_openenv_scale.results.cell import ClientFinding
from pytest_openenv_scale.results.comparison import Status
from pytest_openenv_scale.results.outcome import Outcome, StopReason
from pytest_openenv_scale.verdict.sweep import SweepView, max_batch_certainty, view_sweep

STOOD_STILL = (ClientFinding("loop_lag", "a load process stood still"),)
PLAN = SearchPlan(1, 16_384, precision=0.05, repetitions=3)


def probed(*probes: tuple[int, int | None]) -> list[CellSummary]:
    """Repetitions in order, each of a batch of which so many sessions failed; None: the client left it in doubt."""
    times: dict[int, int] = {}
    summaries: list[CellSummary] = []
    for number, (batch, failed) in enumerate(probes):
        times[batch] = times.get(batch, 0) + 1
        began = NOON + timedelta(seconds=number)
        summary = measured(batch, failed=failed or 0, repetition=times[batch], started_at=began)
        summaries.append(summary if failed is not None else replace(summary, findings=STOOD_STILL))
    return summaries


def searched(
    *probes: tuple[int, int | None],
    stop: StopReason | None = "precision",
    plan: SearchPlan = PLAN,
    slo: Slo | None = None,
    **record: Any,
) -> SweepView:
    summaries = probed(*probes)
    curve = summaries[0].cell.curve
    return a_sweep(
        *summaries,
        slo=slo,
        searches={curve.id: plan},
        stops={curve.id: stop} if stop else {},
        reps=plan.repetitions,
        **record,
    )


undecided = partial(searched, stop="doubt")

CLIFF = ((1, 0), (512, 0), (1024, 247), (777, 0), (778, 1), (778, 1), (778, 1), (777, 0), (777, 0))
EVERY_SESSION = an_slo(success=1)
SLOPE = ((64, 0), (128, 90), (90, 0), (96, 30), (93, 0), (96, 31), (96, 29), (93, 20), (91, 0), (91, 0), (91, 0))
LIMITED = ((512, 0), (1024, 247), (817, 40), (818, 41), (818, 41), (818, 41), (817, 40), (817, 40))
FALLING = ((56, 30), (55, 30), (54, 30), (50, 30), (48, 0), (47, 0), (47, 30), (44, 30), (40, 0), (39, 30))
CASES: dict[str, SweepView] = {
    "cliff": searched(*CLIFF, slo=EVERY_SESSION),
    "slope": searched(*SLOPE, stop="slope"),
    "nearly every time": searched(*SLOPE, *[(93, 0)] * 4, (96, 31), slo=an_slo(batch_per_core=46)),
    "refused beyond": searched(*LIMITED),
    "top": searched(*[(4096, 0)] * 3, stop="top", plan=SearchPlan(1, 4096)),
    "client": searched(*[(960, 0)] * 3, stop="top", plan=SearchPlan(1, 960, bound="client")),
    "bottom": searched(*[(16, 9)] * 3, stop="bottom", plan=SearchPlan(16, 4096)),
    "holds": searched(*[(256, 0)] * 3, stop="holds", plan=SearchPlan(1, 256, needed=256), slo=an_slo(max_batch=256)),
    "fails": searched((256, 56), stop="fails", plan=SearchPlan(1, 256, needed=256), slo=an_slo(max_batch=256)),
    "budget": searched((64, 0), (128, 0), stop="budget"),
    "sessions": searched((64, 0), (64, 0), (64, 0), (128, 50), stop="max_sessions", slo=an_slo(total_p99="9s")),
    "failed once": searched((64, 0), (128, 50), stop="budget", slo=an_slo(batch_per_core=48)),
    "drift": searched(*((batch, 0) for batch in (64, 60, 62, 63)), *FALLING, stop="drift"),
    "unsteady": searched((64, 0), (64, 40), stop="unsteady"),
    "running": searched((64, 0), (128, 50), stop=None, status="running"),
    "one batch alone": searched(*[(8, 0)] * 3, stop="top", plan=SearchPlan(8, 8)),
    "not monotonic": searched((8, 7), (8, 0), (8, 0), (64, 0), (66, 33), (66, 33), (66, 33), (64, 0), (64, 0)),
    "interrupted": searched((64, 0), stop="interrupted"),
    "doubt above": undecided((64, 0), (128, 90), (80, None), (80, None), (64, 0), (64, 0)),
    "doubt below": undecided((8, None), (8, None), plan=SearchPlan(8, 4096)),
    "doubt of one": undecided((8, None), (8, None), plan=SearchPlan(1, 8, needed=8), slo=an_slo(max_batch=8)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_search_in_words(golden: Golden, case: str) -> None:
    curve = CASES[case].curves[0]
    golden([max_batch_sentence(curve), *search_sentences(curve), headline(curve)])


def test_a_search_of_a_steady_state_counts_slots():
    curve = searched(*CLIFF, slo=EVERY_SESSION).curves[0]
    slots = [replace(summary, cell=replace(summary.cell, arrival="steady=60")) for summary in curve.summaries]
    assert "9 repetitions, 6,202 sessions" in search_sentences(curve)[0]
    assert "9 repetitions, 6,202 slots" in search_sentences(replace(curve, summaries=tuple(slots)))[0]


@pytest.mark.parametrize("case", CASES)
def test_they_stand_in_the_block_and_on_the_page(case: str) -> None:
    view = CASES[case]
    wanted = search_sentences(view.curves[0])
    block = [line.text.strip() for line in curve_lines(view.record, view.curves[0], width=400)]
    assert set(wanted) <= set(block)
    assert all(f"- {sentence}" in report_markdown(a_run(view)) for sentence in wanted)


def test_a_page_has_a_row_per_repetition_with_what_became_of_it() -> None:
    page = report_markdown(a_run(CASES["slope"])).splitlines()
    rows = [line for line in page if line.startswith("|") and ("✓ " in line or "✗ " in line) and "%" not in line[:9]]
    assert [int(row.split("|")[1].replace(",", "")) for row in rows[-len(SLOPE) :]] == [batch for batch, _ in SLOPE]
    assert sum("passes in a part of its repetitions" in row for row in rows) == 1
    assert "spread unknown" not in "\n".join(page)


def test_every_repetition_is_a_row_in_its_order() -> None:
    view = CASES["cliff"]
    rows = [line.text.split() for line in curve_lines(view.record, view.curves[0], width=160)]
    numbers = [
        row[0] for row in rows if (row and row[-1] in "✓✗") or (len(row) > 3 and row[0].replace(",", "").isdecimal())
    ]
    assert numbers == [f"{batch:,}" for batch, _ in CLIFF]


@pytest.mark.parametrize(
    ("case", "outcome", "numbers"),
    [
        ("cliff", Outcome.MET, (777, 777, 778)),
        ("slope", Outcome.MET, (91, 91, 96)),
        ("nearly every time", Outcome.MET, (93, 93, 96)),
        ("refused beyond", Outcome.MET, (817, 817, 818)),
        ("top", Outcome.MET, (4096, 4096, None)),
        ("bottom", Outcome.MISSED, (None, None, 16)),
        ("holds", Outcome.MET, (256, 256, None)),
        ("fails", Outcome.MISSED, (None, None, 256)),
        ("budget", Outcome.INCONCLUSIVE, (None, None, None)),
        ("sessions", Outcome.INCONCLUSIVE, (64, 64, 128)),
        ("failed once", Outcome.INCONCLUSIVE, (None, None, 128)),
        ("drift", Outcome.INCONCLUSIVE, (None, None, 39)),
        ("running", Outcome.INCONCLUSIVE, (None, None, 128)),
        ("not monotonic", Outcome.MET, (64, 64, 66)),
        ("doubt above", Outcome.MET, (64, 64, 128)),
        ("doubt below", Outcome.INCONCLUSIVE, (None, None, None)),
        ("doubt of one", Outcome.INCONCLUSIVE, (None, None, None)),
    ],
)
def test_the_numbers_and_the_outcome(case: str, outcome: Outcome, numbers: tuple[int | None, ...]) -> None:
    verdict = CASES[case].curves[0].verdict
    assert verdict.outcome is outcome
    assert (verdict.max_batch, verdict.feasible_max, verdict.infeasible_min) == numbers


def test_a_batch_that_holds_although_it_failed_once_counts_as_passed() -> None:
    cells = {cell.batch: cell for cell in CASES["nearly every time"].curves[0].verdict.cells}
    assert (cells[93].passed, cells[93].by_repetition) == (True, (True, False, True, True, True, True))
    assert [breach.batch for breach in cells[93].breaches] == [93]
    assert [batch for batch, cell in cells.items() if cell.passed is False] == [96, 128]


def test_a_needed_batch_is_missed_by_one_failing_repetition_of_it_also_where_more_is_asked() -> None:
    probes = ((64, 0), (128, 90), (96, 0), (100, 60), (96, 20), (95, 0), (95, 0), (95, 0), (100, 60), (100, 60))
    outcomes = {
        needed: searched(*probes, stop="slope", slo=an_slo(max_batch=needed)).outcome for needed in (95, 96, 97, 100)
    }
    assert outcomes == {
        95: Outcome.MET,
        96: Outcome.MISSED,
        97: Outcome.INCONCLUSIVE,
        100: Outcome.MISSED,
    }


@pytest.mark.parametrize(("per_core", "outcome"), [(32, Outcome.MET), (45, Outcome.INCONCLUSIVE), (64, Outcome.MISSED)])
def test_what_lies_between_a_batch_in_doubt_and_one_that_fails_is_not_missed(per_core: int, outcome: Outcome) -> None:
    probes = ((64, 0), (128, 90), (80, None), (80, None), (64, 0), (64, 0))
    view = undecided(*probes, slo=an_slo(batch_per_core=per_core))  # Of 2 cores.
    assert view.outcome is outcome
    assert max_batch_certainty(view.curves[0]) == "inconclusive"


def test_of_a_server_that_died_before_anything_was_repeated_max_batch_is_not_known() -> None:
    *before, last = probed((64, 0), (128, 128))
    probes = (*before, replace(last, server_exit=ExitStatus.from_returncode(-9)))
    facts = {"searches": {last.cell.curve.id: PLAN}, "stops": {last.cell.curve.id: "server_died"}, "reps": 3}
    outcomes = {
        per_core: a_sweep(*probes, slo=an_slo(batch_per_core=per_core), **facts).outcome for per_core in (48, 64)
    }
    assert outcomes == {48: Outcome.INCONCLUSIVE, 64: Outcome.MISSED}
    curve = a_sweep(*probes, **facts).curves[0]
    assert curve.verdict.outcome is Outcome.MISSED
    assert max_batch_certainty(curve) == "inconclusive"
    assert max_batch_sentence(curve) == "max batch unknown"


def test_of_a_search_that_never_began_nothing_is_told() -> None:
    record = CASES["interrupted"].record
    never = view_sweep(replace(record, stops={}), ())
    assert search_sentences(never.curves[0]) == []
    assert "nothing was measured" in headline(never.curves[0])


def test_a_curve_that_is_left_out_is_named_beside_a_search() -> None:
    view = CASES["cliff"]
    curves = tuple(replace(curve, batches=(1,)) for curve in view.record.curves)  # As an engine lays them out.
    record = replace(view.record, curves=curves, left_out=("ws at wait 5 s is left out",))
    assert "ws at wait 5 s is left out" in view_sweep(record, view.summaries).curves[0].verdict.notes


def test_how_sure_the_max_batch_is_comes_from_all_its_repetitions() -> None:
    view = CASES["cliff"]
    (sentence,) = (
        line.text for line in curve_lines(view.record, view.curves[0], width=400) if "confidence" in line.text
    )
    assert sentence.strip().startswith("batch 777 over 3 repetitions: success 100.0 %, total p99 1.02 s (")
    assert sentence.strip() in report_markdown(a_run(view))


def test_a_kernel_that_queues_too_few_connections_is_noted_by_the_largest_batch_that_was_asked() -> None:
    notes = {
        backlog: searched((64, 0), (128, 90), backlog=backlog).curves[0].verdict.notes for backlog in (None, 128, 100)
    }
    assert notes[None] == notes[128] == ()
    (note,) = notes[100]
    assert "lets 100 connections wait" in note
    assert "net.core.somaxconn=128" in note


def test_the_first_breach_is_that_of_the_batch_that_ends_the_curve() -> None:
    breach = CASES["not monotonic"].curves[0].verdict.first_breach
    assert breach is not None
    assert (breach.batch, breach.limit, breach.observed, breach.allowed) == (66, "success", 0.5, 0.95)


def a_run(view: SweepView) -> Run:
    return Run(Path("nowhere"), a_manifest(view), (view,))


def test_programs_read_the_search_beside_its_numbers() -> None:
    curve = run_document(a_run(CASES["cliff"]))["sweeps"][0]["curves"][0]
    search = curve["search"]
    assert (curve["feasible_max"], curve["infeasible_min"]) == (777, 778)
    assert (search["stop_reason"], search["shape"], search["drift"]) == ("precision", "cliff", None)
    assert search["sessions"] == sum(batch for batch, _ in CLIFF)
    assert [probe["batch"] for probe in search["probes"]] == [batch for batch, _ in CLIFF]
    assert [probe["repetition"] for probe in search["probes"]] == [1, 1, 1, 1, 1, 2, 3, 2, 3]
    assert curve["first_breach"]["observed"] == pytest.approx(777 / 778)


LOWER = ((1, 0), (650, 0), (700, 300), (690, 300), (690, 300), (690, 300), (650, 0), (650, 0))
NEARER = ((1, 0), (690, 0), (760, 300), (700, 300), (700, 300), (700, 300), (690, 0), (690, 0))
WIDE = ((1, 0), (690, 0), (790, 300), (790, 300), (790, 300), (690, 0), (690, 0))


@pytest.mark.parametrize(
    ("now", "status", "cause"),
    [
        (LOWER, Status.REGRESSED, "beyond"),
        (NEARER, Status.WORSE, "moved"),
        (WIDE, Status.UNCHANGED, "within_bracket"),
        (CLIFF, Status.UNCHANGED, "same"),
    ],
)
def test_a_search_has_regressed_only_where_what_fails_now_is_beyond_what_is_allowed(now, status, cause) -> None:
    then, today = (searched(*probes, slo=EVERY_SESSION) for probes in (CLIFF, now))
    fail_on = parse_fail_on("max_batch:-11%,total_p99:+900%")
    compared = compare_runs(a_measured_run(then), a_measured_run(today, day=1), fail_on)
    change = next(change for change in compared.curves[0].changes if change.metric == "max_batch")
    assert (change.status, change.why.cause) == (status, cause)
    assert not any("not asked" in remark for remark in compared.curves[0].remarks)


@pytest.mark.parametrize(
    ("stop", "failures", "status"),
    [
        ("budget", 1, Status.INCONCLUSIVE),
        ("interrupted", 1, Status.INCONCLUSIVE),
        ("budget", 3, Status.REGRESSED),
        ("server_died", 1, Status.REGRESSED),
    ],
)
def test_one_failure_of_a_search_that_was_cut_off_is_no_regression(
    stop: StopReason, failures: int, status: Status
) -> None:
    then = searched(*CLIFF, slo=EVERY_SESSION)
    today = searched((1, 0), (64, 0), *[(128, 50)] * failures, stop=stop, slo=EVERY_SESSION)
    compared = compare_runs(a_measured_run(then), a_measured_run(today, day=1), parse_fail_on("max_batch:-11%"))
    change = next(change for change in compared.curves[0].changes if change.metric == "max_batch")
    assert change.status is status


def test_memory_that_grew_is_told_as_what_was_seen_and_no_more() -> None:
    view = CASES["cliff"].curves[0]
    search = view.verdict.search
    assert search is not None
    verdict = replace(view.verdict, search=replace(search, grown_bytes=6300.0))
    (sentence,) = (text for text in search_sentences(replace(view, verdict=verdict)) if "memory" in text)
    assert "grew by 6.15 KiB a session" in sentence
    assert "-m churn" in sentence
