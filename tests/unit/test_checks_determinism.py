"""What a seed decides has to be the same among others; what it does not decide is nobody's fault here."""

from __future__ import annotations

import itertools
import random
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from checking_subjects import make_subject, served
from goldens import Golden
from pytest_openenv_scale.checks.isolation import repeatability, replays
from pytest_openenv_scale.checks.isolation.concurrent import interleaved
from pytest_openenv_scale.checks.isolation.determinism import determinism
from pytest_openenv_scale.checks.isolation.repeatability import learn_seed_reference, repeatable
from pytest_openenv_scale.checks.isolation.sequential import sequential
from pytest_openenv_scale.checks.run import Check
from pytest_openenv_scale.checks.subject import Subject
from pytest_openenv_scale.checks.under_load.fairness import fair_shares
from pytest_openenv_scale.config.workload import Workload
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult
from toy_environment import RefusedError, Toy, serving

pytestmark = pytest.mark.usefixtures("quick_waits")

MET, MISSED, SKIPPED = CheckOutcome.MET, CheckOutcome.MISSED, CheckOutcome.SKIPPED


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeatability, "_PAUSE_S", 0.01)
    monkeypatch.setattr(replays, "REPLAY_S", 2.0)


def asked_of(url: str, **changes: Any) -> Subject:
    return make_subject(url, **{"workload": Workload(({},), waits=False), "wait_s": None, "timeout_s": 10.0, **changes})


async def result_of(make: Any, *, check: Check = determinism, limit: int = 100, **changes: Any) -> CheckResult:
    async with serving(make, limit) as url:
        return await check(asked_of(url, **changes))


class Dice(Toy):
    """Throws of a die of its own, deep in the observation."""

    def begin(self, data: dict[str, Any]) -> None:
        super().begin(data)
        self.random = random.Random(data.get("seed"))

    def throw(self) -> int:
        return self.random.randint(1, 6)

    def see(self) -> dict[str, Any]:
        return {"table": {"throws": [{"dice": self.throw()}, {"dice": 7}]}, "steps": self.count}

    def done(self) -> bool:
        return self.count >= 8


class Shared(Dice):
    """Throws of a die that all sessions share."""

    die = random.Random()

    def begin(self, data: dict[str, Any]) -> None:
        super().begin(data)
        Shared.die.seed(data.get("seed"))

    def throw(self) -> int:
        return Shared.die.randint(1, 1000)


async def test_a_die_of_its_own_is_the_same_among_others(golden: Golden) -> None:
    result = await result_of(Dice)
    assert result.outcome is MET, result
    golden(result.details)
    assert result.figures["sessions"] == 8
    assert result.figures["episodes"] == 24


async def test_a_die_that_all_share_is_shown_with_field_step_and_both_conversations() -> None:
    result = await result_of(Shared)
    assert result.outcome is MISSED, result
    assert "seed 1, observation.table.throws[0].dice after" in result.headline
    assert "expected" in result.headline
    assert "seen" in result.headline
    among, alone = result.transcripts
    assert (among.title, alone.title) == ("seed 1 among 7 others", "seed 1 alone")
    assert "random.Random(seed)" in (result.remedy or "")


class Noise(Toy):
    """Nothing is decided by a seed."""

    def see(self) -> dict[str, Any]:
        return {"noise": random.random()}


class NamedByChance(Toy):
    """Another name and another time with each episode, as the same in all else."""

    def begin(self, data: dict[str, Any]) -> None:
        super().begin(data)
        self.name, self.began = str(uuid.uuid4()), time.time()

    def see(self) -> dict[str, Any]:
        times = {"began": self.began, "elapsed": random.random(), "pid": random.randint(1, 10**6)}
        return {"steps": self.count, "name": self.name, **times}


ANSWERS: list[tuple[type[Toy], CheckOutcome, str]] = [
    (Dice, MET, "repeatable"),
    (Toy, MET, "no_seed_effect"),
    (NamedByChance, MET, "no_seed_effect"),
    (Noise, SKIPPED, "random"),
]


@pytest.mark.parametrize(("make", "outcome", "answer"), ANSWERS)
async def test_an_environment_is_repeatable_or_has_no_use_for_a_seed_or_is_random(
    golden: Golden, make: type[Toy], outcome: CheckOutcome, answer: str
) -> None:
    result = await result_of(make)
    assert (result.outcome, result.figures["answer"]) == (outcome, answer), result
    golden(result.headline, masks={r"0\.\d+": "N"})


@pytest.mark.parametrize(("make", "outcome", "answer"), ANSWERS)
@pytest.mark.parametrize("limit", [1, 100])
async def test_it_is_asked_in_short_and_of_a_server_of_one_session(
    make: type[Toy], outcome: CheckOutcome, answer: str, limit: int
) -> None:
    for check in (determinism, repeatable):
        result = await result_of(make, check=check, limit=limit)
        assert (result.outcome, result.figures["answer"]) == (outcome, answer), result


@pytest.mark.parametrize(
    ("field", "value", "answer"),
    [
        ("candidate", lambda: random.randint(1, 10**6), "random"),
        ("date", lambda: f"day {random.random()}", "random"),
        ("huge", lambda: 10**400 + random.randint(1, 10**6), "random"),
        ("lacking", lambda: [{"of": [float("nan")]}, float("nan")], "no_seed_effect"),
        ("took_ms", random.random, "no_seed_effect"),
        ("at", lambda: f"2026-11-30T09:{random.randint(10, 59)}:00", "no_seed_effect"),
        ("run", lambda: random.randbytes(6).hex(), "no_seed_effect"),
    ],
)
async def test_names_and_times_are_no_chance(field: str, value: Callable[[], Any], answer: str) -> None:
    class Marked(Toy):
        def begin(self, data: dict[str, Any]) -> None:
            super().begin(data)
            self.mark = value()

        def see(self) -> dict[str, Any]:
            return {**super().see(), field: self.mark}

    assert (await result_of(Marked, check=repeatable)).figures["answer"] == answer


@pytest.mark.parametrize("name", ["task", "score"])
async def test_a_task_or_a_score_by_chance_is_random_beside_what_the_seed_decides(name: str) -> None:
    """A task is none of the names that a server gives; where the seed decides a die, a reward tells all the same."""

    class Judged(Toy if name == "task" else Dice):
        def see(self) -> dict[str, Any]:
            return {**super().see(), "task": f"task {random.randint(1, 10**6)}"} if name == "task" else super().see()

        def reward(self) -> float | None:
            return random.random() if name == "score" else None

    result = await result_of(Judged)
    assert (result.outcome, result.figures["answer"]) == (SKIPPED, "random"), result
    assert ("observation.task" if name == "task" else "reward") in result.headline


async def test_ids_beside_what_the_seed_decides_are_left_out(golden: Golden) -> None:
    class Named(Dice):
        def see(self) -> dict[str, Any]:
            return {**super().see(), "id": random.random()}

    result = await result_of(Named)
    assert result.outcome is MET, result
    golden([line for line in result.details if line.endswith("observation.id")])


async def test_the_worker_that_answers_is_not_decided_by_the_seed() -> None:
    """Alone, seeds may come to different workers, and each to the same one twice."""
    workers = itertools.chain([1, 2, 1, 2, 1, 2, 1], itertools.cycle([1, 1, 2]))

    class Worked(Dice):
        def begin(self, data: dict[str, Any]) -> None:
            super().begin(data)
            self.pid = next(workers) if "seed" in data else 0

        def see(self) -> dict[str, Any]:
            return {**super().see(), "pid": self.pid}

    async with serving(Worked) as url:
        subject = asked_of(url)
        reference = await subject.learn(learn_seed_reference)
        result = await determinism(subject)
    assert "observation.pid" not in reference.decided
    assert result.outcome is MET, result


async def test_a_seed_that_is_refused_is_a_capability_that_is_not_there() -> None:
    class Refusing(Dice):
        def begin(self, data: dict[str, Any]) -> None:
            if "seed" in data:
                raise RefusedError("no seeds here")
            super().begin(data)

    result = await result_of(Refusing)
    assert result.outcome is SKIPPED
    assert "EXECUTION_ERROR (no seeds here)" in result.headline


async def late(late_kind: type[Any]) -> CheckResult:
    """The result where the server changes once the lone sessions were played."""
    async with serving(late_kind) as url:
        subject = asked_of(url)
        await subject.learn(learn_seed_reference)
        late_kind.late = True
        return await determinism(subject)


async def test_what_turns_out_to_differ_alone_too_is_not_missed(golden: Golden) -> None:
    class Changing(Dice):
        late = False

        def throw(self) -> int:
            return random.randint(10, 10**6) if self.late else super().throw()

    result = await late(Changing)
    assert result.outcome is SKIPPED, result
    golden(result.headline, masks={r": \d+, then \d+": ": N, then N"})


async def test_one_field_that_differs_alone_too_leaves_the_others_judged() -> None:
    class Half(Dice):
        late = False

        def see(self) -> dict[str, Any]:
            mood = random.random() if self.late else self.count
            return {"coin": self.throw(), "luck": self.random.random() + (mood if self.late else 0)}

    result = await late(Half)
    assert result.outcome is MET, result
    assert "observation.luck" not in result.headline


async def test_a_single_difference_that_no_play_alone_decides_fails_nothing() -> None:
    sessions = itertools.count()

    class Once(Dice):
        late = False

        def begin(self, data: dict[str, Any]) -> None:
            super().begin(data)
            self.odd = self.late and "seed" in data and next(sessions) == 2

        def throw(self) -> int:
            return super().throw() + 10 * self.odd

    result = await late(Once)
    assert result.outcome is MET, result
    assert "not decided: 1 of 24 episodes" in result.headline
    assert result.figures["episodes_differing"] == 1


async def test_reward_and_done_are_judged_too(golden: Golden) -> None:
    live: list[int] = []

    class Short(Dice):
        def begin(self, data: dict[str, Any]) -> None:
            super().begin(data)
            if "seed" in data:
                live.append(id(self))

        def end(self) -> None:
            live[:] = [one for one in live if one != id(self)]

        def done(self) -> bool:
            return self.count >= (2 if len(live) > 2 else 5)

    result = await result_of(Short)
    assert result.outcome is MISSED
    golden(result.headline)


async def test_large_observations_are_compared_whole_and_quoted_in_part() -> None:
    class Picture(Shared):
        def see(self) -> dict[str, Any]:
            return {"pixels": [[self.throw() for _ in range(20)] for _ in range(20)]}

    result = await result_of(Picture)
    assert result.outcome is MISSED
    assert "observation.pixels after" in result.headline
    assert "in all)" in result.headline
    assert len(result.headline) < 450


async def test_sessions_that_are_not_answered_count_as_far_as_they_went() -> None:
    class Tired(Dice):
        counter = itertools.count()

        def __init__(self) -> None:
            super().__init__()
            self.tired = next(Tired.counter) in (17, 18)

        def take(self, action: dict[str, Any]) -> None:
            if self.tired and self.count:
                raise ConnectionError
            super().take(action)

    result = await result_of(Tired, timeout_s=1.0)
    assert result.outcome is MET, result
    assert any("2 episodes ended early" in line for line in result.details)


@pytest.mark.parametrize(
    ("defect", "outcome"),
    [
        ("none", MET),
        ("global_random", MISSED),
        ("no_seed", MET),
        ("chance", SKIPPED),
        ("unfair_lock", MET),
        ("no_state", MET),
    ],
)
async def test_over_a_real_server(defect: str, outcome: CheckOutcome) -> None:
    async with served(defect) as url:
        result = await determinism(asked_of(url))
    assert result.outcome is outcome, result


class Legal(Dice):
    """A game that names the one move that it takes."""

    def see(self) -> dict[str, Any]:
        return {"legal": self.count, "die": self.throw()}

    def take(self, action: dict[str, Any]) -> None:
        if action.get("move") != self.count:
            raise RefusedError(f"illegal: {action}")
        super().take(action)


def legal_move(session: int, step: int, observation: Any) -> dict[str, Any]:
    return {"move": observation["legal"]}


@pytest.mark.parametrize("check", [determinism, repeatable, interleaved, sequential, fair_shares])
async def test_actions_are_made_of_what_the_session_sees(check: Check) -> None:
    result = await result_of(Legal, check=check, workload=Workload(function=f"{__name__}:legal_move", waits=False))
    assert result.outcome is MET, result
