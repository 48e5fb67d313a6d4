"""Findings: each figure of a sentence is a cell of a table, opposite truths give opposite sentences or none."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest
from cells import an_slo
from compare_samples import a_judged_sweep
from hypothesis import given, settings
from hypothesis import strategies as st
from study_samples import Batches, Sample, a_run_of, a_study, sample

from goldens import Golden
from pytest_openenv_scale.analysis.axes import hold_equally_many, holds_more
from pytest_openenv_scale.analysis.study import Study, join_runs
from pytest_openenv_scale.config.limits import Slo
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.reporting.content.findings import findings
from pytest_openenv_scale.reporting.content.study_tables import study_tables
from pytest_openenv_scale.results.cell import ClientFinding as ClientFinding
from pytest_openenv_scale.results.outcome import ErrorCount
from pytest_openenv_scale.verdict.sweep import view_sweep

GOOD, BAD = (1.0, 0.05), (0.5, 0.4)
FEW = {1: GOOD, 8: GOOD, 32: BAD}
MANY = {1: GOOD, 8: GOOD, 32: GOOD, 128: BAD}
ALL = {1: GOOD, 8: GOOD, 32: GOOD, 128: GOOD}
NUMBER = re.compile(r"(?:[≥≤] |×)?\d+(?:,\d{3})*(?:\.\d+)?(?: %| (?:ms|µs|s)\b)?")


def finding_texts(*samples: Sample) -> list[str]:
    return sentences(a_study(*samples))


def sentences(study: Study) -> list[str]:
    return [finding.text for finding in findings(study, study_tables(study))]


def of_kind(kind: str, study: Study) -> list[str]:
    return [finding.text for finding in findings(study, study_tables(study)) if finding.kind == kind]


def figures(text: str, study: Study) -> list[str]:
    """The numbers of a sentence with their units; those in names are none."""
    targets = [row[0].text for table in study_tables(study) if table.key == "nodes" for row in table.rows]
    tests = [curve.sweep.test.rpartition("::")[2] for curve in study.curves]
    for name in sorted({*study.infrastructures, *targets, *tests}, key=len, reverse=True):
        text = text.replace(name, "")
    return NUMBER.findall(re.sub(r"\w+_p\d\d|p\d\d", "", text))


def cell_texts(study: Study) -> set[str]:
    return {cell.text for table in study_tables(study) for row in table.rows for cell in row}


def twice(of: Sample) -> Sample:
    return replace(of, reps=2)


def test_the_infrastructure_that_holds_the_most_is_named_with_the_next(golden: Golden) -> None:
    study = a_study(twice(sample("a", MANY, target="a")), twice(sample("b", FEW, target="b")))
    golden(of_kind("best", study))


def test_the_opposite_truth_gives_the_opposite_sentence(golden: Golden) -> None:
    study = a_study(twice(sample("a", FEW, target="a")), twice(sample("b", MANY, target="b")))
    golden(of_kind("best", study))


def test_equal_limits_have_no_best(golden: Golden) -> None:
    study = a_study(twice(sample("a", FEW, target="a")), twice(sample("b", FEW, target="b")))
    golden(of_kind("best", study))


def test_two_limits_that_were_not_reached_say_nothing_of_which_is_larger() -> None:
    larger = {**ALL, 512: GOOD}
    assert of_kind("best", a_study(sample("a", larger, target="a"), sample("b", ALL, target="b"))) == []


def test_other_batches_in_between_say_nothing_of_which_limit_is_larger() -> None:
    between = sample("a", {1: GOOD, 10: GOOD, 100: BAD}, target="a")
    assert of_kind("best", a_study(between, sample("b", FEW, target="b"))) == []


def test_what_was_not_asked_for_its_limit_is_named_as_not_known() -> None:
    small = sample("c", {1: GOOD}, target="c")
    (text,) = of_kind("best", a_study(sample("a", MANY, target="a"), sample("b", FEW, target="b"), small))
    assert "a holds the most" in text
    assert "not known of c" in text


def test_one_repetition_is_said_to_have_no_known_spread() -> None:
    one = a_study(sample("a", MANY, target="a"), sample("b", FEW, target="b"))
    assert "one repetition: spread unknown" in of_kind("best", one)[0]


def test_curves_under_other_limits_are_not_compared() -> None:
    strict = replace(sample("b", FEW, target="b"), slo=an_slo(total_p99=1.3))
    assert of_kind("best", a_study(sample("a", MANY, target="a"), strict)) == []


def test_a_cell_the_client_spoilt_supports_no_sentence() -> None:
    run = a_run_of(sample("a", MANY, target="a"), sample("b", FEW, target="b"))
    doubt = ClientFinding("cpu", "the client's CPU was 98 % busy")
    spoilt = tuple(
        view_sweep(sweep.record, [replace(summary, findings=(doubt,), errors=()) for summary in sweep.summaries])
        for sweep in run.sweeps
    )
    assert [
        cell.passed for sweep in spoilt for curve in sweep.curves for cell in curve.verdict.cells if cell.passed
    ] == []
    assert of_kind("best", join_runs([run])) != []
    assert [text for text in sentences(join_runs([replace(run, sweeps=spoilt)])) if "holds" in text] == []


def test_the_faster_of_two_is_named_only_where_repetitions_do_not_overlap(golden: Golden) -> None:
    slow = {batch: (share, 10 * late) for batch, (share, late) in ALL.items()}
    quick, late = twice(sample("a", ALL, target="a")), twice(sample("b", slow, target="b"))
    golden(of_kind("fastest", a_study(quick, late)))
    assert of_kind("fastest", a_study(quick, twice(sample("b", ALL, target="b")))) == []


@pytest.mark.parametrize(
    ("ws", "http"),
    [
        (MANY, FEW),
        (FEW, MANY),
        (FEW, FEW),
        (ALL, ALL),
    ],
)
def test_the_protocol_that_holds_more_is_named(golden: Golden, ws, http) -> None:
    late = ("reset", "timeout", None, "no answer within 10 s")
    both = sample("a", curves={("ws", 1.0): ws, ("http", 1.0): http}, reps=2, episodes=True, error=late)
    golden(of_kind("protocols", a_study(both)))
    capped = replace(both, error=("reset", "capacity", "CAPACITY_REACHED", "Server at capacity"))
    assert of_kind("protocols", a_study(replace(both, episodes=False), capped)) == []


@pytest.mark.parametrize(
    ("short", "long"),
    [
        (FEW, MANY),
        (MANY, FEW),
        (FEW, FEW),
        (ALL, ALL),
    ],
)
def test_the_effect_of_the_wait_is_said(golden: Golden, short, long) -> None:
    study = a_study(sample("a", curves={("ws", 0.1): short, ("ws", 5.0): long}, reps=2))
    golden(of_kind("wait", study))


def failing_once(study: Study, wait: float, batch: int) -> Study:
    """The study with the first repetition of one batch failed, and no other repetition of it."""

    def once(summary: CellSummary) -> CellSummary:
        if (summary.cell.wait, summary.batch, summary.repetition) != (wait, batch, 1):
            return summary
        errors = (ErrorCount("reset", "timeout", None, batch // 2, "no answer"),)
        return replace(summary, success_rate=0.5, failed=batch // 2, successful=batch // 2, errors=errors)

    (run,) = study.runs
    sweeps = [view_sweep(view.record, [once(summary) for summary in view.summaries]) for view in run.sweeps]
    return join_runs([replace(run, sweeps=tuple(sweeps))])


@pytest.mark.parametrize(("short", "long", "wait"), [(ALL, MANY, 0.1), (MANY, ALL, 5.0), (MANY, MANY, 0.1)])
def test_the_effect_of_a_wait_needs_every_repetition_on_its_side(short, long, wait) -> None:
    """One repetition of three failed a batch earlier, as chance may have it."""
    three = sample("a", curves={("ws", 0.1): short, ("ws", 5.0): long}, reps=3)
    batch = max(batch for batch, figures in ({0.1: short, 5.0: long}[wait]).items() if figures is GOOD)
    assert of_kind("wait", failing_once(a_study(three), wait, batch)) == []


def test_a_wait_in_between_that_says_otherwise_leaves_nothing_to_say() -> None:
    def waits(*batches: Batches) -> Study:
        curves = {("ws", float(wait)): each for wait, each in enumerate(batches, 1)}
        return a_study(sample("a", curves=curves, reps=2))

    most = {**ALL, 512: BAD}
    assert len(of_kind("wait", waits(FEW, MANY, most))) == 1
    assert of_kind("wait", waits(FEW, most, MANY)) == []
    assert len(of_kind("wait", waits(most, MANY, FEW))) == 1
    assert of_kind("wait", waits(MANY, most, FEW)) == []


@given(
    st.sets(st.tuples(st.sampled_from([8, 32, 128]), st.integers(1, 3))),
    st.sets(st.tuples(st.sampled_from([8, 32, 128]), st.integers(1, 3))),
)
def test_more_is_what_every_repetition_of_the_one_held_and_none_of_the_other(one, other) -> None:
    (first,), (second,) = (a_judged_sweep(8, 32, 128, latency=(0.1,) * 3, fails=fails).curves for fails in (one, other))
    if holds_more(first, second):
        held_batches, not_held = first.verdict.max_batches, second.verdict.max_batches
        assert min(batch or 0 for batch in held_batches) > max(batch or 0 for batch in not_held)
        assert not holds_more(second, first)
        assert not hold_equally_many(first, second)
    assert hold_equally_many(first, second) is hold_equally_many(second, first)


def test_of_what_was_measured_once_nothing_is_the_fastest() -> None:
    slow = {batch: (share, 10 * late) for batch, (share, late) in ALL.items()}
    once = a_study(sample("a", ALL, target="a"), sample("b", slow, target="b"))
    assert of_kind("fastest", once) == []


def test_the_cliff_is_said_with_how_it_fails(golden: Golden) -> None:
    study = a_study(twice(sample("a", MANY)))
    golden(of_kind("cliff", study))


def test_most_failures_are_more_than_half_of_them() -> None:
    def of_kinds(*counts: int) -> str:
        errors = tuple(ErrorCount("reset", "timeout", f"{code}", count) for code, count in enumerate(counts))
        (run,) = a_study(twice(sample("a", MANY))).runs
        (view,) = run.sweeps
        summaries = [replace(each, errors=errors) if each.failed else each for each in view.summaries]
        (text,) = of_kind("cliff", join_runs([replace(run, sweeps=(view_sweep(view.record, summaries),))]))
        return text

    assert ", most failures being timeout 0 during reset" in of_kinds(34, 30)
    assert ", the most frequent failures being timeout 0 during reset" in of_kinds(24, 20, 20)
    assert ", the most frequent failures being timeout 0 during reset" in of_kinds(32, 32)


def test_a_cliff_of_latency_is_told_as_one(golden: Golden) -> None:
    late = {1: GOOD, 8: (1.0, 3.0)}
    study = a_study(replace(twice(sample("a", late)), slo=an_slo(total_p99=2.0)))
    golden(of_kind("cliff", study))


def test_no_cliff_is_said_where_all_passes() -> None:
    assert finding_texts(sample("a", ALL)) == []


def test_hosts_that_share_evenly_and_unevenly_are_told_apart(golden: Golden) -> None:
    even = a_run_of(sample("a", ALL, hosts=2))
    golden(of_kind("hosts", join_runs([even])))
    golden(of_kind("hosts", join_runs([_spread(even, {"one": 120, "other": 8})])))
    golden(of_kind("hosts", join_runs([_spread(even, {"one": 128})])))


def _spread(run, counts):
    """The run with its largest batch spread so."""
    sweeps = tuple(
        view_sweep(
            sweep.record,
            [
                replace(summary, hosts=len(counts), host_counts=counts) if summary.batch == 128 else summary
                for summary in sweep.summaries
            ],
        )
        for sweep in run.sweeps
    )
    return replace(run, sweeps=sweeps)


def test_few_sessions_per_core_are_said_and_many_are_not(golden: Golden) -> None:
    few, many = (twice(sample("a", MANY, cores=cores)) for cores in (96, 2))
    golden(of_kind("cores", a_study(few)))
    assert of_kind("cores", a_study(many)) == []


def test_a_limit_that_was_not_reached_says_nothing_of_cores() -> None:
    assert of_kind("cores", a_study(sample("a", ALL, cores=96))) == []


def replicas(count: int, batches) -> Sample:
    return sample(f"e-{count}", batches, target=f"envoy:replicas={count}", limits={"replicas": count}, reps=2)


def test_what_replicas_bring_is_said(golden: Golden) -> None:
    study = join_runs([a_run_of(replicas(1, FEW), replicas(2, MANY))])
    golden(of_kind("nodes", study))
    assert of_kind("nodes", join_runs([a_run_of(replicas(1, FEW), replicas(2, ALL))])) == []
    assert "hold less than 1" in of_kind("nodes", join_runs([a_run_of(replicas(1, MANY), replicas(2, FEW))]))[0]
    assert "hold no more than 1" in of_kind("nodes", join_runs([a_run_of(replicas(1, FEW), replicas(2, FEW))]))[0]


def test_perfect_scaling_is_an_efficiency_that_batches_in_between_cannot_take_away() -> None:
    def said_of(one: Batches, four: Batches, kind: str = "timeout") -> str:
        late = ("reset", kind, None, "no answer")
        samples = [replace(replicas(count, batches), error=late) for count, batches in ((1, one), (4, four))]
        (text,) = of_kind("nodes", join_runs([a_run_of(*samples)]))
        return text

    many = {256: GOOD, 512: BAD}
    assert ", perfect scaling" in said_of({64: GOOD, 66: BAD}, many)
    assert "perfect" not in said_of({64: GOOD, 128: BAD}, many)
    assert "perfect" not in said_of({64: GOOD, 66: BAD}, {128: GOOD, 256: BAD})
    capped = said_of({64: GOOD, 66: BAD}, many, kind="capacity")
    assert "perfect" not in capped
    assert capped.endswith("; a limit that was set refused more on e-1 and e-4.")


def test_every_figure_of_a_study_of_everything_is_a_cell() -> None:
    study = a_study()
    figures_found = [(text, figure) for text in sentences(study) for figure in figures(text, study)]
    assert len(figures_found) > 30
    assert [pair for pair in figures_found if pair[1] not in cell_texts(study)] == []


def test_the_search_for_figures_finds_them() -> None:
    study = a_study(sample("node-4"))
    assert figures("node-4: ≥ 16,384 at 0.1 s, 63.7 % (p99 12 ms, ×1.50).", study) == [
        *("≥ 16,384", "0.1 s", "63.7 %", "12 ms", "×1.50")
    ]


def test_an_empty_study_says_nothing() -> None:
    assert sentences(join_runs([])) == []


batches = st.dictionaries(
    st.sampled_from([1, 2, 8, 32, 100, 128]),
    st.tuples(st.sampled_from([1.0, 0.96, 0.5, 0.0]), st.sampled_from([0.0, 0.01, 0.3, 4.0])),
    min_size=1,
).map(lambda curves: dict(sorted(curves.items())))
samples = st.builds(
    sample,
    st.sampled_from(["a", "local-uvicorn", "node-4", "7"]),
    target=st.sampled_from(["local", "envoy:replicas=2", "envoy:replicas=4", "http://127.0.0.1:8000"]),
    test=st.sampled_from(["t.py::test_a", "t.py::test_2"]),
    cores=st.sampled_from([None, 1, 2, 96]),
    hosts=st.sampled_from([None, 1, 2, 3]),
    limits=st.sampled_from([{}, {"replicas": 2}, {"replicas": 4}]),
    reps=st.sampled_from([1, 2]),
    slo=st.sampled_from([Slo(), an_slo(total_p99=1.3), an_slo(max_batch=8, overhead_p99=0.1)]),
    curves=st.dictionaries(
        st.tuples(st.sampled_from(["ws", "http"]), st.sampled_from([None, 0.1, 1.0])), batches, min_size=1
    ),
    error=st.sampled_from(
        [
            ("connect", "handshake_status", "503", "busy 17"),
            ("step", "timeout", None, ""),
            ("reset", "capacity", "X", ""),
        ]
    ),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(samples, min_size=1, max_size=4), st.booleans())
def test_whatever_was_measured_every_figure_is_a_cell_and_nothing_is_said_twice(samples, in_one_run) -> None:
    study = join_runs([a_run_of(*samples)]) if in_one_run else a_study(*samples)
    texts = sentences(study)
    cells = cell_texts(study)
    assert [(text, figure) for text in texts for figure in figures(text, study) if figure not in cells] == []
    assert [text for text, times in Counter(texts).items() if times > 1] == []
    subjects = Counter(
        (finding.kind, finding.text.partition(":")[0].partition(", ")[0] if finding.kind in ("best", "fastest") else "")
        for finding in findings(study, study_tables(study))
        if finding.kind in ("best", "fastest")
    )
    assert [subject for subject, times in subjects.items() if times > 1] == []


@settings(max_examples=40, deadline=None)
@given(batches, batches)
def test_swapping_what_two_infrastructures_did_swaps_what_is_said(one, other) -> None:
    first = a_study(sample("aaa", one, target="x"), sample("bbb", other, target="y"))
    second = a_study(sample("aaa", other, target="x"), sample("bbb", one, target="y"))
    names = {"aaa": "bbb", "bbb": "aaa"}

    def claims(study: Study) -> list[str]:
        return [text for text in sentences(study) if "equally" not in text]

    swapped = [re.sub("aaa|bbb", lambda match: names[match[0]], text) for text in claims(first)]
    assert sorted(swapped) == sorted(claims(second))
