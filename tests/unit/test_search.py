"""A search asks for few batches, is not led astray by one repetition, and ends saying why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from pytest_openenv_scale.config.search import (
    NO_SEARCH,
    SearchPlan,
    SearchRange,
    parse_precision,
    parse_search,
)
from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.engine.allowance import Allowance
from pytest_openenv_scale.engine.search import MOST_PROBES, Search, possible_courses
from pytest_openenv_scale.results.outcome import Probe
from pytest_openenv_scale.verdict.bracket import Bracket, Tally, drift_of, grown_bytes
from simulated_server import KINDS, PLAN, PRECISION, REPETITIONS, STEADY, SimulatedServer, answer, search


def searched(passes: Callable[[int, int], bool | None], plan: SearchPlan = PLAN, served: int | None = None) -> Search:
    """Search a server that answers by the batch and how often it was asked for."""
    running = Search(plan)
    while (batch := running.next_batch()) is not None:
        passed = passes(batch, running.times_asked(batch) + 1)
        running.record(batch, passed, served if passed is False else None)
    return running


def batches(running: Search) -> list[int]:
    return [probe.batch for probe in running.probes]


def up_to(edge: int) -> Callable[[int, int], bool]:
    return lambda batch, time: batch <= edge


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auto", SearchRange(1, None)),
        (True, SearchRange(1, None)),
        ("off", NO_SEARCH),
        (False, NO_SEARCH),
        ("16..4096", SearchRange(16, 4096)),
        (" 7 .. 7 ", SearchRange(7, 7)),
    ],
)
def test_a_search_is_written_as_a_range_or_a_word(text, expected):
    assert parse_search(text) == expected
    assert bool(parse_search(text)) is (expected != NO_SEARCH)


@pytest.mark.parametrize("text", ["", "16", "4096..16", "0..8", "1..2..3", "1..9999999", "1.5..3", None, 1, 0, 16.0])
def test_anything_else_is_one_line_that_says_what_to_write(text):
    with pytest.raises(GrammarError, match=r"write|whole|at most"):
        parse_search(text)


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), (0.02, 0.02), (0, 0.0), ("0", 0.0)])
def test_the_precision_is_a_share_and_0_is_exact(text, share):
    assert parse_precision(text) == share


@pytest.mark.parametrize("text", ["60%", -1, "x", 5])
def test_a_precision_beyond_half_is_refused(text):
    with pytest.raises(GrammarError):
        parse_precision(text)


def test_batches_are_asked_first_and_then_double_until_one_fails():
    batches_asked = batches(searched(up_to(700)))
    assert batches_asked[:7] == [1, 8, 32, 128, 256, 512, 1024]
    assert 512 < batches_asked[7] < 1024


@pytest.mark.parametrize("edge", [1, 2, 3, 31, 32, 33, 777, 5000, 16_383])
def test_an_exact_search_comes_to_the_very_number(edge):
    done = searched(up_to(edge), replace(PLAN, precision=0.0))
    assert (done.bracket.feasible_max, done.bracket.infeasible_min) == (edge, edge + 1)
    assert done.stop_reason == "precision"
    assert done.bracket.shape == "cliff"


@pytest.mark.parametrize("edge", [1, 9, 100, 777, 5000])
def test_what_passes_and_what_fails_are_as_near_as_the_precision_and_both_are_verified(edge):
    bracket = searched(up_to(edge)).bracket
    best, worst = bracket.feasible_max or 0, bracket.infeasible_min or 0
    assert best <= edge < worst <= max(best + 1, best * 1.05)
    assert bracket.tallies[best].passes >= REPETITIONS
    assert bracket.tallies[worst].fails >= REPETITIONS


def test_the_largest_batch_that_may_be_asked_for_ends_a_search_that_only_passes():
    done = searched(up_to(10**9), replace(PLAN, high=1000))
    assert (done.stop_reason, done.bracket.feasible_max, max(batches(done))) == ("top", 1000, 1000)


def test_one_unlucky_repetition_of_the_largest_is_asked_until_it_holds():
    done = searched(lambda batch, time: (batch, time) != (1000, 2), replace(PLAN, high=1000))
    assert (done.stop_reason, done.bracket.feasible_max, done.bracket.tallies[1000]) == ("top", 1000, Tally(5, 1))


def test_so_does_the_smallest_that_fails_which_is_asked_as_often_as_a_candidate():
    done = searched(up_to(0), replace(PLAN, low=16))
    assert (done.stop_reason, batches(done)) == ("bottom", [16, 16, 16])


def test_one_unlucky_repetition_far_below_locks_nothing():
    done = searched(lambda batch, time: batch <= 700 and (batch, time) != (8, 1))
    best = done.bracket.feasible_max or 0
    assert 665 <= best <= 700
    assert done.bracket.exceptions == (8,)


def test_a_candidate_that_fails_once_makes_room_for_a_smaller_one():
    first = searched(up_to(700)).bracket.feasible_max
    assert first is not None
    done = searched(lambda batch, time: batch <= 700 and (batch, time) != (first, 2))
    assert done.bracket.feasible_max not in (None, first)
    assert 0.95 * 700 <= (done.bracket.feasible_max or 0) <= 700
    assert done.bracket.tallies[first].fails == 1


def in_turn(*outcomes: bool) -> Callable[[int], bool]:
    """What the repetitions of a batch come to, by their number from 1; beyond these they pass."""
    return lambda time: outcomes[time - 1] if time <= len(outcomes) else True


@pytest.mark.parametrize(
    ("outcomes", "number", "record"),
    [
        ((True, False), 97, (5, 1)),
        ((True, False, True, False), 97, (7, 2)),
        ((True, False, False, False), 91, (1, 3)),
        ((True, False, True, False, True, False), 91, (3, 3)),
    ],
)
def test_a_batch_that_passes_in_a_part_is_repeated_until_it_is_as_sure_as_a_candidate_or_cannot_be(
    outcomes, number, record
):
    """Where everything from 92 to 99 fails once, the bracket is wider than 5 % unless one of them holds."""

    def passes(batch: int, time: int) -> bool:
        if batch == 97:
            return in_turn(*outcomes)(time)
        return batch <= 91 or (batch < 97 and time == 1)

    done = searched(passes, replace(PLAN, first=(91, 97, 100), high=4096, hints=(91, 97, 100)))
    tally = done.bracket.tallies[97]
    assert (done.bracket.feasible_max, (tally.passes, tally.fails)) == (number, record)


def test_as_sure_as_3_of_3_are_5_of_6_and_7_of_9():
    sure = {(passes, fails) for passes in range(11) for fails in range(11 - passes) if Tally(passes, fails).holds(3)}
    assert {fails: min(passes for passes, failed in sure if failed == fails) for _, fails in sure} == {0: 3, 1: 5, 2: 7}
    assert not any(Tally(passes, 3).may_hold(3) for passes in range(8))
    assert Tally(10).holds(10)
    assert not Tally(9, 1).holds(10)


def test_the_last_repetitions_are_of_both_numbers_and_say_what_is_said_of_them():
    for seed in range(30):
        for kind in STEADY:
            done, _ = search(SimulatedServer.draw(kind, seed))
            last = {probe.batch: probe.passed for probe in done.probes[-REPETITIONS - 1 :]}
            if done.stop_reason in ("precision", "slope"):
                assert last[done.bracket.feasible_max] is True
                assert last[done.bracket.infeasible_min] is False


def test_hints_are_asked_as_soon_as_they_lie_in_the_bracket():
    done = searched(up_to(777), replace(PLAN, precision=0.0, hints=(777, 778)))
    assert batches(done) == [1, 777, 778, 778, 778, 777, 777]


def test_a_hint_that_is_wrong_misleads_nobody():
    for hints in ((300, 301), (5000, 5001)):
        bracket = searched(up_to(777), replace(PLAN, precision=0.0, hints=hints)).bracket
        assert (bracket.feasible_max, bracket.infeasible_min) == (777, 778)


def test_the_count_a_refusal_names_is_a_hint():
    exact = replace(PLAN, precision=0.0)
    with_hint, without = (searched(up_to(777), exact, served) for served in (777, None))
    assert with_hint.bracket.feasible_max == without.bracket.feasible_max == 777
    assert len(with_hint.probes) < len(without.probes)
    assert batches(with_hint)[7:9] == [777, 778]


def test_whether_one_batch_holds_is_asked_with_the_fewest_sessions():
    question = replace(PLAN, needed=400)
    assert batches(searched(up_to(400), question)) == [400, 400, 400]
    assert searched(up_to(400), question).stop_reason == "holds"
    assert batches(searched(up_to(399), question)) == [400]
    assert searched(up_to(399), question).stop_reason == "fails"


def test_a_batch_in_doubt_is_asked_twice_and_then_passed_by():
    done = searched(lambda batch, time: None if batch > 300 else True)
    assert done.stop_reason == "doubt"
    assert 285 <= (done.bracket.feasible_max or 0) <= 300
    assert done.bracket.infeasible_min is None
    assert batches(done).count(512) == 2
    assert batches(searched(lambda batch, time: None, replace(PLAN, needed=9))) == [9, 9]


def test_a_server_that_answers_by_chance_alone_does_not_search_forever():
    for seed in range(6):
        source = SimulatedServer.draw("sharp", seed).random
        done = searched(lambda batch, time, source=source: source.random() < 0.5)
        assert done.stop_reason is not None
        assert len(done.probes) <= MOST_PROBES


def test_a_slope_is_called_one():
    probes = [Probe(90, True)] * 3 + [Probe(95, True), Probe(95, False)] + [Probe(100, False)] * 3
    bracket = Bracket.of(probes, 3)
    assert (bracket.feasible_max, bracket.infeasible_min, bracket.shape) == (90, 100, "slope")
    assert Bracket.of([*probes[:3], *probes[5:]], 3).shape == "cliff"


def test_memory_that_grows_with_every_repetition_is_a_leak():
    mib = 2**20
    growing = [(1, 50 * mib), (512, 60 * mib), *((256, (100 + 10 * at) * mib) for at in range(6))]
    assert grown_bytes(growing) == pytest.approx(50 * mib / (5 * 256))
    assert grown_bytes([*growing[:-1], (256, 139 * mib)]) is None
    assert grown_bytes([(batch, 100 * mib) for batch, _ in growing]) is None
    assert grown_bytes([(1, None), (2, None)]) is None


RUNS = 50


@pytest.fixture(scope="module", params=STEADY)
def answers(request):
    return [answer(request.param, seed) for seed in range(RUNS)]


def test_simulated_servers_are_searched_within_the_precision(answers):
    assert sum(answer.is_within for answer in answers) >= RUNS * 0.9
    assert not any(answer.is_false for answer in answers)
    assert sum(answer.said is not None for answer in answers) <= 1


def test_for_a_third_of_the_sessions_of_a_grid_as_fine(answers):
    assert sorted(answer.cost for answer in answers)[RUNS // 2] <= 1 / 3


@pytest.mark.parametrize("kind", ["drifting", "leaking"])
def test_a_server_that_changes_meanwhile_is_said_to(kind):
    answers = [answer(kind, seed) for seed in range(15)]
    assert sum(answer.said is not None for answer in answers) >= 13
    assert not any(answer.is_false and answer.said is None for answer in answers)
    if kind == "leaking":
        assert {answer.said for answer in answers} <= {"fell", None}


def test_a_steady_server_never_drifts():
    for seed in range(20):
        done, _ = search(SimulatedServer.draw("sharp", seed))
        assert drift_of(done.probes, PRECISION) is None


def test_the_simulators_truth_is_where_half_of_the_repetitions_pass():
    for kind in KINDS:
        server = SimulatedServer.draw(kind, 3)
        below, above = server.share_passing(server.truth * 0.999), server.share_passing(server.truth * 1.001)
        assert below >= 0.5 >= above - 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_no_repetition_begins_that_would_not_fit_into_the_budget(kind):
    for seed in range(20):
        server = SimulatedServer.draw(kind, seed)
        budget = server.random.uniform(3, 60)
        running, spent = search(server, budget=budget)
        assert spent <= budget
        assert running.probes
        assert running.stop_reason is not None


def test_an_estimate_grows_with_the_batch_and_a_ceiling_of_sessions_holds():
    allowance = Allowance(seconds=10.0, sessions=100)
    assert allowance.refuses(101) == "max_sessions"
    assert allowance.refuses(50) is None
    allowance.use(50, 2.0, 50)
    assert allowance.estimate(100) == pytest.approx(2.2)
    assert allowance.refuses(51) == "max_sessions"
    allowance.sessions = None
    allowance.use(100, 4.0, 100)
    assert [allowance.estimate(batch) for batch in (10, 60, 200)] == pytest.approx([2.2, 4.4, 8.8])
    assert allowance.seconds == pytest.approx(4.0)
    assert allowance.refuses(50) is None
    assert allowance.refuses(60) == "budget"
    assert (allowance.spent_s, allowance.opened) == (6.0, 150)


def test_what_a_curve_with_longer_waits_took_refuses_nothing_of_the_next():
    allowance = Allowance(seconds=20.0)
    allowance.use(1, 10.5, 1)
    assert allowance.refuses(1) == "budget"
    allowance.begin_curve(10.0)
    assert allowance.refuses(1) is None
    assert allowance.spent_s == pytest.approx(10.5)
    allowance.begin_curve(0.0)
    assert allowance.refuses(1) == "budget"


def test_the_most_a_search_can_cost_is_known_before():
    plan = replace(PLAN, high=1024)
    most = max(map(sum, possible_courses(plan)))
    assert all(sum(batches(searched(up_to(edge), plan))) <= most * 1.1 for edge in range(0, 1100, 37))
