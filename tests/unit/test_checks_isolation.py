"""Leaks are found on whatever shows them, and nothing else is taken for one."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import secrets
from typing import Any

import pytest

from checking_subjects import make_subject, served
from goldens import Golden
from pytest_openenv_scale.checks.isolation import concurrent as isolation_module
from pytest_openenv_scale.checks.isolation import reference as alone_module
from pytest_openenv_scale.checks.isolation import replays
from pytest_openenv_scale.checks.isolation.concurrent import interleaved, under_load
from pytest_openenv_scale.checks.isolation.observations import Identities
from pytest_openenv_scale.checks.isolation.reference import learn_reference
from pytest_openenv_scale.checks.isolation.sequential import reset_twice, sequential
from pytest_openenv_scale.checks.run import Check
from pytest_openenv_scale.checks.subject import Subject
from pytest_openenv_scale.config.workload import Workload
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult
from scripted_server import Peer, observation, scripted
from toy_environment import ACTION, RefusedError, Toy, serving

pytestmark = pytest.mark.usefixtures("quick_waits")

MET, MISSED, SKIPPED = CheckOutcome.MET, CheckOutcome.MISSED, CheckOutcome.SKIPPED
PARALLEL, ALL = [interleaved, under_load], [interleaved, under_load, sequential, reset_twice]


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alone_module, "_PAUSE_S", 0.01)
    monkeypatch.setattr(isolation_module, "_BUSY_S", 0.1)
    monkeypatch.setattr(isolation_module, "_LONGEST_PAUSE_S", 0.02)


def asked_of(url: str, **changes: Any) -> Subject:
    defaults = {"workload": Workload(({},), source="/schema"), "wait_s": None, "schema": {"action": ACTION}}
    return make_subject(url, **{**defaults, "timeout_s": 10.0, **changes})


async def result_of(make: Any, check: Check, *, limit: int = 100, **changes: Any) -> CheckResult:
    async with serving(make, limit) as url:
        return await check(asked_of(url, **changes))


class NoState(Toy):
    def state(self) -> None:
        return None


class Blind(NoState):
    """Repeats nothing."""

    def see(self) -> dict[str, Any]:
        return {"steps": self.count}


@pytest.mark.parametrize("check", ALL)
async def test_sessions_that_are_apart_meet_it_and_the_signals_are_named(check: Check) -> None:
    result = await result_of(Toy, check)
    assert result.outcome is MET, result
    seen_by = "seen by: observation.steps, state.episode_id, state.step_count, token in observation.text"
    assert result.details[0] == seen_by


@pytest.mark.parametrize("check", ALL)
async def test_a_server_without_state_is_judged_by_its_observations(golden: Golden, check: Check) -> None:
    result = await result_of(NoState, check)
    assert result.outcome is MET, result
    golden(result.details[0])


@pytest.mark.parametrize("check", PARALLEL)
async def test_one_object_for_all_sessions_is_shown_with_both_conversations(check: Check) -> None:
    shared = Toy()
    result = await result_of(lambda: shared, check)
    assert result.outcome is MISSED
    assert "saw session" in result.headline
    assert "create_app" in (result.remedy or "")
    seer, owner = result.transcripts
    assert "which saw it" in seer.title
    assert "whose it is" in owner.title
    leaked = next(word for word in result.headline.split('"') if word.startswith("oes"))
    assert any(leaked in said.text and said.by == "server" for said in seer.said)
    assert any(leaked in said.text and said.by == "client" for said in owner.said)


async def test_a_token_in_a_nested_field_is_enough() -> None:
    log: list[str] = []

    class Log(NoState):
        def see(self) -> dict[str, Any]:
            log.append(self.text)
            return {"board": {"lines": [{"said": line.upper()} for line in log[-3:]]}}

    result = await result_of(Log, interleaved)
    assert result.outcome is MISSED
    assert "observation.board.lines[" in result.headline


async def test_a_foreign_seed_is_known_again() -> None:
    class Last:
        seed = 0

    class Seedy(NoState):
        def begin(self, data: dict[str, Any]) -> None:
            super().begin(data)
            Last.seed = data.get("seed", 0)

        def see(self) -> dict[str, Any]:
            return {"seed": Last.seed}

    result = await result_of(Seedy, interleaved)
    assert result.outcome is MISSED
    assert "saw session" in result.headline
    assert "observation.seed" in result.headline


async def test_one_number_that_happens_to_be_a_seed_is_no_leak() -> None:
    seeds: list[int] = []
    drawn: list[Toy] = []

    class Numbers(NoState):
        """One session among others draws a number that is another one's seed, and shows it until the episode ends."""

        number = 7

        def begin(self, data: dict[str, Any]) -> None:
            super().begin(data)
            seeds.append(data.get("seed", 0))

        def take(self, action: dict[str, Any]) -> None:
            super().take(action)
            if len(seeds) > 30 and not drawn:
                drawn.append(self)
                self.number = next(seed for seed in reversed(seeds[:-1]) if seed)

        def see(self) -> dict[str, Any]:
            return {"number": self.number, "text": self.text}

    result = await result_of(Numbers, interleaved)
    assert drawn
    assert result.outcome is MET, result


async def test_a_shared_count_in_observations_is_confirmed_by_sessions_alone(golden: Golden) -> None:
    class Shared(Blind):
        total = 0

        def begin(self, data: dict[str, Any]) -> None:
            Shared.total = 0

        def take(self, action: dict[str, Any]) -> None:
            Shared.total += 1

        def see(self) -> dict[str, Any]:
            return {"steps": Shared.total}

    result = await result_of(Shared, interleaved)
    assert result.outcome is MISSED, result
    assert "observation.steps after" in result.headline
    golden([line for line in result.details if "more sessions" in line])


async def test_step_counts_of_a_shared_state_are_enough_without_identities() -> None:
    class Record(Blind):
        count = 0

        def begin(self, data: dict[str, Any]) -> None:
            Record.count = 0
            self.episode_id = None

        def take(self, action: dict[str, Any]) -> None:
            Record.count += 1

        def see(self) -> dict[str, Any]:
            return {}

        def state(self) -> Any:
            return {"step_count": Record.count}

    result = await result_of(Record, interleaved)
    assert result.outcome is MISSED
    assert "state.step_count after" in result.headline


@pytest.mark.parametrize("check", ALL)
async def test_observations_of_no_order_tell_nothing_and_are_skipped(golden: Golden, check: Check) -> None:
    class Noise(NoState):
        def see(self) -> dict[str, Any]:
            return {"value": random.random(), "kind": "noise", "board": [[random.random()] * 3] * 3}

    result = await result_of(Noise, check)
    assert result.outcome is SKIPPED
    golden(result.headline)


@pytest.mark.parametrize("check", [*PARALLEL, sequential])
async def test_times_that_only_show_under_load_are_no_leak(check: Check) -> None:
    live: list[Toy] = []
    most = 0

    class Slow(NoState):
        def __init__(self) -> None:
            nonlocal most
            super().__init__()
            live.append(self)
            most = max(most, len(live))

        def see(self) -> dict[str, Any]:
            late = 0.07 * (len(live) > 3)
            note = f"step {self.count} took {late:.1f} s"
            return {"steps": self.count, "elapsed": self.count / 2 + late, "said": note, "text": self.text}

        def end(self) -> None:
            live.remove(self)

    result = await result_of(Slow, check)
    assert result.outcome is MET, result
    assert not any("left out" in line for line in result.details)
    assert most > 3


async def test_what_differs_alone_too_once_one_looks_longer_is_left_out(golden: Golden) -> None:
    class Rare(NoState):
        late = 0

        def see(self) -> dict[str, Any]:
            return {"mood": f"mood {self.count + Rare.late}", "text": self.text}

    async with serving(Rare) as url:
        subject = asked_of(url)
        await subject.learn(learn_reference)
        Rare.late = 1
        result = await interleaved(subject)
    assert result.outcome is MET, result
    golden([line for line in result.details if line.startswith("observation.mood: ")], masks={r"mood \d+": "MOOD"})


@pytest.mark.parametrize(("shared", "outcome"), [(False, MET), (True, MISSED)])
async def test_a_name_the_server_gives_each_session_is_not_for_two_of_them(shared: bool, outcome: CheckOutcome) -> None:
    live: list[Any] = []

    class Named(NoState):
        def __init__(self) -> None:
            # One object for two sessions, but only where two are there at once.
            self.name = live[-1].name if shared and live else secrets.token_hex(8) + "a"
            live.append(self)
            super().__init__()

        def see(self) -> dict[str, Any]:
            return {"name": self.name}

        def end(self) -> None:
            live.remove(self)

    result = await result_of(Named, interleaved)
    assert result.outcome is outcome, result
    assert ("both showed observation.name" in result.headline) == shared


async def test_a_shared_name_is_not_decided_where_there_is_no_time_for_sessions_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replays, "REPLAY_S", 0.0)
    live: list[Any] = []

    class Named(NoState):
        def __init__(self) -> None:
            self.name = live[-1].name if live else secrets.token_hex(8) + "a"
            live.append(self)
            super().__init__()

        def see(self) -> dict[str, Any]:
            return {"name": self.name}

        def end(self) -> None:
            live.remove(self)

    result = await result_of(Named, interleaved)
    assert result.outcome is MET, result
    assert any(line.startswith("not decided: two sessions had the same observation.name") for line in result.details)


async def test_a_server_that_makes_its_own_episode_ids_is_no_leak() -> None:
    class Own(Toy):
        def begin(self, data: dict[str, Any]) -> None:
            super().begin({})
            self.episode_id = secrets.token_hex(8)

    for check in ALL:
        result = await result_of(Own, check)
        assert result.outcome is MET, result


async def test_an_episode_id_of_the_servers_own_that_comes_again_is_a_leak() -> None:
    last: list[str] = []

    class Again(NoState):
        def __init__(self) -> None:
            self.name = last[-1] if last else "none"
            self.count = 0

        def begin(self, data: dict[str, Any]) -> None:
            self.name, self.count, self.text = secrets.token_hex(8), 0, ""
            last.append(self.name)

        def state(self) -> Any:
            return {"episode_id": self.name}

    result = await result_of(Again, sequential)
    assert result.outcome is MISSED
    assert "state before its reset" in result.headline
    assert len(result.transcripts) == 2


async def test_a_session_that_goes_on_with_the_last_ones_episode_is_found(golden: Golden) -> None:
    class Pooled(Blind):
        last = 0
        named = False

        def begin(self, data: dict[str, Any]) -> None:
            super().begin(data)
            self.named = "episode_id" in data
            self.count = 0 if self.named else Pooled.last

        def take(self, action: dict[str, Any]) -> None:
            super().take(action)
            Pooled.last = self.count if self.named else Pooled.last

    result = await result_of(Pooled, sequential)
    assert result.outcome is MISSED, result
    golden(result.headline)


async def test_numbers_that_go_on_from_session_to_session_are_found(golden: Golden) -> None:
    class Total(Blind):
        total = 0

        def take(self, action: dict[str, Any]) -> None:
            Total.total += 1

        def see(self) -> dict[str, Any]:
            return {"total": Total.total, "echo": 1}

        def state(self) -> Any:
            return {"step_count": self.count, "episode_id": self.episode_id}

    result = await result_of(Total, sequential)
    assert result.outcome is MISSED
    golden(result.headline)
    assert re.search(r": (\d+) → \1,", result.headline)


class _Unchanged(Toy):
    left = "text"

    def begin(self, data: dict[str, Any]) -> None:
        old = dict(vars(self))
        super().begin(data)
        if old and "episode_id" in data:
            setattr(self, self.left, old[self.left])


@pytest.mark.parametrize(
    "left",
    [
        "text",
        "count",
        "episode_id",
    ],
)
async def test_what_a_reset_leaves_behind_is_named(golden: Golden, left: str) -> None:
    class Left(_Unchanged):
        pass

    Left.left = left
    began: list[int] = []

    class First(Left):
        def begin(self, data: dict[str, Any]) -> None:
            if id(self) in began or "episode_id" not in data:
                Left.begin(self, data)
            else:
                Toy.begin(self, data)
                began.append(id(self))

    toys: list[Toy] = []

    def make() -> Toy:
        toys.append(First())
        return toys[-1]

    result = await result_of(make, reset_twice)
    assert result.outcome is MISSED, result
    golden([result.headline, *result.details], masks={r"oes[0-9a-f]+": "OES"})
    assert "step_count=0" in (result.remedy or "")


async def test_done_that_stays_true_after_a_reset_is_found() -> None:
    class Done(Toy):
        over = False

        def take(self, action: dict[str, Any]) -> None:
            super().take(action)
            self.over = self.over or self.count >= 1

        def done(self) -> bool:
            return self.over

    result = await result_of(Done, reset_twice)
    assert result.outcome is MISSED
    assert "done is still true" in result.headline


async def test_a_server_of_one_session_skips_what_needs_two() -> None:
    for check in PARALLEL:
        result = await result_of(Toy, check, limit=1)
        assert result.outcome is SKIPPED
        assert "max_concurrent_envs" in result.headline
    for check in (sequential, reset_twice):
        assert (await result_of(Toy, check, limit=1)).outcome is MET


async def test_a_session_without_an_answer_is_no_leak(golden: Golden) -> None:
    class Mute(Toy):
        made = itertools.count()

        def __init__(self) -> None:
            super().__init__()
            self.mute = next(Mute.made) == 16

        def take(self, action: dict[str, Any]) -> None:
            if self.mute:
                raise ConnectionError
            super().take(action)

    result = await result_of(Mute, interleaved, timeout_s=1.0)
    assert result.outcome is MET, result
    golden([line for line in result.details if "no leak" in line])


async def test_the_action_a_person_wrote_is_not_changed() -> None:
    actions: list[dict[str, Any]] = []

    class Hearing(Toy):
        def take(self, action: dict[str, Any]) -> None:
            actions.append(action)
            super().take(action)

    result = await result_of(Hearing, interleaved, workload=Workload(({"text": "hello"},), source="as written"))
    assert result.outcome is MET
    assert {action["text"] for action in actions} == {"hello"}


async def test_a_token_or_seed_that_is_not_taken_is_left_out() -> None:
    class Strict(Toy):
        def take(self, action: dict[str, Any]) -> None:
            if action.get("text"):
                raise RefusedError("no text")
            super().take(action)

    async with serving(Strict) as url:
        subject = asked_of(url)
        result = await interleaved(subject)
        reference = await subject.learn(learn_reference)
    assert result.outcome is MET, result
    assert reference is not None
    assert reference.texts == ()
    assert reference.seeded


@pytest.mark.parametrize(
    ("defect", "outcomes"),
    [
        ("none", [MET, MET, MET]),
        ("shared_record", [MISSED, MISSED, MET]),
        ("sequential_state", [MET, MISSED, MET]),
        ("global_random", [MET, MET, MET]),
    ],
)
async def test_over_a_real_server(defect: str, outcomes: list[CheckOutcome]) -> None:
    async with served(defect) as url:
        subject = asked_of(url)
        results = [await check(subject) for check in (interleaved, sequential, reset_twice)]
    assert [result.outcome for result in results] == outcomes, results


@pytest.mark.parametrize(("at", "heard_last"), [(0, "reset"), (2, "step")])
async def test_a_server_that_falls_silent_alone_is_asked_no_more(at: int, heard_last: str) -> None:
    """The first session that names its seed gets so many steps answered."""
    sessions_heard: list[list[str]] = []

    async def script(peer: Peer) -> None:
        sessions_heard.append([])
        seeded, steps = False, 0
        await peer.accept()
        while (message := await peer.asked())["type"] != "close":
            sessions_heard[-1].append(message["type"])
            seeded = seeded or "seed" in message.get("data", {})
            steps += message["type"] == "step"
            if not (seeded and steps >= at):
                peer.say({"type": "state", "data": {}} if message["type"] == "state" else observation(steps=steps))
        await peer.part()

    async with scripted(script) as server:
        subject = asked_of(server.url, timeout_s=0.3)
        assert await subject.learn(learn_reference) is None
    assert len(sessions_heard) == 2  # The lone session, and one more.
    assert sessions_heard[-1][-1] == heard_last


async def test_all_of_it_is_bounded_where_a_server_stops_answering() -> None:
    class Stuck(Toy):
        made = itertools.count()

        def __init__(self) -> None:
            super().__init__()
            self.stuck = next(Stuck.made) > 14

        def done(self) -> bool:
            return False

        def state(self) -> Any:
            if self.stuck and self.count:
                raise ConnectionError
            return super().state()

    result = await asyncio.wait_for(result_of(Stuck, interleaved, timeout_s=1.0), 20)
    assert result.outcome is MET, result


def of_processes(count: int) -> type[Toy]:
    """An environment that names its process: so many workers take sessions in turn."""
    made = itertools.count()

    class Worked(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.pid = 100 + next(made) % count

        def see(self) -> dict[str, Any]:
            return {**super().see(), "pid": self.pid, "host_url": "http://h"}

    return Worked


@pytest.mark.parametrize("check", PARALLEL)
async def test_sessions_in_different_processes_tell_nothing_of_isolation(golden: Golden, check: Check) -> None:
    result = await result_of(of_processes(100), check)
    assert result.outcome is SKIPPED, result
    assert result.figures["sessions_together"] == 0
    golden(result.headline)


async def test_what_sessions_share_a_process_is_told(golden: Golden) -> None:
    result = await result_of(of_processes(3), interleaved)
    assert result.outcome is MET, result
    assert (result.figures["pids"], result.figures["sessions_together"]) == (3, 8)
    golden([result.headline, *result.details], masks={r"\d+ answers": "N answers"})


async def test_of_workers_that_nobody_names_it_is_told_that_nothing_is_known(golden: Golden) -> None:
    result = await result_of(Toy, interleaved, endpoint={"limits": {"workers": 4}})
    assert result.outcome is MET, result
    golden(result.headline, masks={r"\d+ answers": "N answers"})


async def test_a_leak_between_processes_is_a_leak() -> None:
    class Filed(of_processes(100)):
        last = ""

        def take(self, action: dict[str, Any]) -> None:
            super().take(action)
            Filed.last = self.text

        def see(self) -> dict[str, Any]:
            return {**super().see(), "file": Filed.last}

    assert (await result_of(Filed, interleaved)).outcome is MISSED


def test_an_identity_that_plays_again_is_its_own_and_no_others() -> None:
    identities = Identities()
    one, other = identities.new(), identities.new()
    again = identities.again(one)
    assert again.episode_id != one.episode_id
    assert (again.seed, again.token) == (one.seed, one.token)
    foreign = set[int]()
    assert identities.label_text(again.episode_id, again, foreign) == "<its own episode_id>"
    assert not foreign
    identities.label_text(again.episode_id, other, foreign)
    assert foreign == {one.number}
