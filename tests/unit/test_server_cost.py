"""What a session and a step cost a server, told apart from what it keeps, what leaks, and what it does at rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from cells import a_curve, a_summary, an_slo
from served_cells import MIB, Server

from goldens import Golden
from pytest_openenv_scale.config.limits import LIMITS, make_limit, parse_slo_expression
from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.metrics.cost import server_cost
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.reporting.content.server_cost import cost_sentence
from pytest_openenv_scale.results.outcome import Cost, CurveVerdict, Outcome
from pytest_openenv_scale.verdict.sweep import CurveView, judge_curve


def covers(cost: Cost | None, truth: float) -> bool:
    assert cost is not None
    assert cost.low is not None
    assert cost.high is not None
    return cost.low <= truth <= cost.high


def width(cost: Cost | None) -> float:
    assert cost is not None
    assert cost.low is not None
    assert cost.high is not None
    return cost.high - cost.low


@pytest.mark.parametrize("keeps", [0.0, 0.6, 1.0])
def test_memory_per_session_is_found_whatever_the_allocator_keeps(keeps):
    cost = server_cost(Server(keeps=keeps).sweep()).memory_per_session
    assert covers(cost, MIB)
    assert cost is not None
    assert cost.value == pytest.approx(MIB, rel=0.1)


@pytest.mark.parametrize("keeps", [0.0, 1.0])
def test_what_ended_sessions_leave_behind_is_not_what_an_open_one_costs(keeps):
    cells = Server(keeps=keeps, leak=0.5 * MIB).sweep()
    cost, sound = (server_cost(each).memory_per_session for each in (cells, Server(keeps=keeps).sweep()))
    assert cost is not None
    assert cost.value == pytest.approx(MIB, rel=0.2)
    assert covers(cost, MIB)
    assert width(cost) > width(sound), "how much is left behind is not known exactly"
    without_repetitions = server_cost(Server(keeps=keeps, leak=0.5 * MIB).sweep(reps=1)).memory_per_session
    assert without_repetitions is not None
    assert without_repetitions.value == pytest.approx(1.5 * MIB, rel=0.1)


def test_threads_and_descriptors_of_all_processes_are_counted_per_session():
    cost = server_cost(Server(threads=0.5, descriptors=3).sweep())
    assert covers(cost.threads_per_session, 0.5)
    assert covers(cost.descriptors_per_session, 3.0)
    none = server_cost(Server(threads=0).sweep()).threads_per_session
    assert none is not None
    assert (none.low, none.value, none.high) == (0, 0, 0)


def test_cpu_per_step_is_without_what_the_server_does_at_rest():
    cells = Server(cpu_per_step=0.004, idle_cores=0.5).sweep()
    cost = server_cost(cells).cpu_per_step
    assert cost is not None
    assert cost.value == pytest.approx(0.004)
    assert cells[0].cpu_per_step == pytest.approx(0.004 + 4 * 0.5 / 40)


def test_one_batch_bounds_cpu_per_step_from_above():
    cost = server_cost(Server(idle_cores=0.5).sweep([64])).cpu_per_step
    assert cost is not None
    assert (cost.points, cost.value, cost.low) == (1, None, None)
    assert cost.high == pytest.approx((320 * 0.004 + 4 * 0.5 + 0.02) / 320)


def test_two_numbers_of_open_sessions_say_nothing():
    cells = [
        replace(cell, server=replace(cell.server, rising=cell.server.rising[::2])) for cell in Server().sweep([4, 8])
    ]
    assert server_cost(cells).memory_per_session == Cost(3)


def test_where_the_server_cannot_be_seen_there_is_no_cost():
    cost = server_cost([a_summary(4), a_summary(8)])
    assert set(cost.to_json().values()) == {None}


def test_a_second_curve_is_told_by_what_was_seen_in_the_first():
    server = Server(keeps=1.0)
    first, second = server.sweep(), server.sweep()
    alone, after = server_cost(second).memory_per_session, server_cost(second, first).memory_per_session
    assert alone is not None
    assert alone.value is None
    assert covers(after, MIB)


def test_sessions_of_another_mode_only_tell_how_many_were_held():
    server = Server(keeps=1.0)
    first, second = server.sweep([8, 16]), server.sweep(mode="http")
    cost = server_cost(second, first).memory_per_session
    assert cost is not None
    assert cost.points == server_cost(second).memory_per_session.points  # pyright: ignore[reportOptionalMemberAccess]
    assert covers(cost, MIB)


def test_a_cell_whose_peak_no_sample_saw_says_nothing():
    server = Server(keeps=1.0)
    unseen = server.sweep(peak_concurrency=1000)
    cost = server_cost(unseen).memory_per_session
    assert cost == Cost(0)


def test_what_came_after_a_process_ended_says_nothing():
    server = Server()
    sound = server.sweep()
    ended = server.play(256, 4, ended_pids=(17,))
    another = Server(memory=9 * MIB, cells=server.cells).sweep([512, 1024])
    assert server_cost([*sound, ended, *another]).memory_per_session == server_cost(sound).memory_per_session


def judged(cells: Sequence[CellSummary], **limits) -> CurveView:
    curve = a_curve(*sorted({cell.batch for cell in cells}))
    return CurveView(curve, tuple(cells), judge_curve(curve, cells, an_slo(**limits)))


def cause(verdict: CurveVerdict, name: str) -> tuple[Outcome, str]:
    (limit,) = (limit for limit in verdict.limits if limit.limit == name)
    return limit.outcome, limit.cause


@pytest.mark.parametrize(
    ("name", "good", "bad", "between"),
    [
        ("memory_per_session", "2MiB", "500KiB", MIB),
        ("threads_per_session", 1, 0.9, None),
        ("descriptors_per_session", 2, 1.5, None),
        ("cpu_per_step", "5ms", "3ms", None),
    ],
)
def test_a_cost_is_judged_where_its_interval_lies_on_one_side(name, good, bad, between):
    cells = Server().sweep()
    assert cause(judged(cells, **{name: good}).verdict, name) == (Outcome.MET, "reached")
    assert cause(judged(cells, **{name: bad}).verdict, name) == (Outcome.MISSED, "broken")
    if between is not None:
        assert cause(judged(cells, **{name: between}).verdict, name) == (Outcome.INCONCLUSIVE, "open")
    few = Server().sweep([4])
    assert cause(judged(few, **{name: bad}).verdict, name) == (Outcome.INCONCLUSIVE, "few_points")
    assert cause(judged([a_summary(8)], **{name: good}).verdict, name) == (Outcome.INCONCLUSIVE, "unseen")


def test_a_bound_from_above_suffices_to_meet_a_limit():
    assert cause(judged(Server().sweep([64]), cpu_per_step="50ms").verdict, "cpu_per_step") == (Outcome.MET, "reached")


def test_what_sessions_cost_in_words(golden: Golden):
    verdicts = [
        judged(Server(noise=0).sweep()).verdict,
        judged(Server(memory=0, threads=0.01).sweep()).verdict,
        judged(Server().sweep([4])).verdict,
        judged([a_summary(8)]).verdict,
    ]
    for verdict in verdicts:
        golden(cost_sentence(verdict))


def test_rss_is_a_limit_of_each_cell():
    cells = Server(noise=0).sweep([8, 64], reps=1)
    view = judged(cells, rss="100MiB")
    assert [cell.passed for cell in view.verdict.cells] == [True, False]
    assert (view.verdict.max_batch, view.verdict.outcome) == (8, Outcome.MISSED)
    assert view.verdict.first_breach is not None
    assert view.verdict.first_breach.observed == 144 * MIB
    (unseen,) = judged([a_summary(8)], rss="1GiB").verdict.cells
    assert (unseen.passed, unseen.reasons[0].kind, unseen.reasons[0].cause) == (None, "unmeasurable", "unseen")


@pytest.mark.parametrize(
    ("text", "allowed", "expression"),
    [
        ("memory_per_session<=2MiB", 2 * MIB, "memory_per_session<=2097152B"),
        ("rss <= 1.5 gib", 1.5 * 2**30, "rss<=1610612736B"),
        ("rss<=500kB", 500_000, "rss<=500000B"),
        ("cpu_per_step<=5ms", 0.005, "cpu_per_step<=0.005s"),
        ("threads_per_session<=0.5", 0.5, "threads_per_session<=0.5"),
    ],
)
def test_limits_on_cost_are_read(text, allowed, expression):
    limit = parse_slo_expression(text)
    assert (limit.allowed, limit.expression) == (allowed, expression)
    assert parse_slo_expression(limit.expression) == limit


@pytest.mark.parametrize("value", ["2", "2 Mib x", "0MiB", "-1MiB", "MiB", "1e99GiB", 0, -1, True, None])
def test_a_size_that_means_nothing_is_refused(value):
    with pytest.raises(GrammarError, match="memory_per_session"):
        make_limit("memory_per_session", value)


def test_a_size_without_a_unit_is_told_to_have_one():
    with pytest.raises(GrammarError, match="rss needs a unit, got '4'; write 4MiB or 4GiB"):
        make_limit("rss", "4")


def test_costs_are_judged_on_the_curve():
    assert {name for name, kind in LIMITS.items() if kind.family == "cost"} == set(server_cost([]).to_json())
