"""Sessions held at once, what refused the rest, and slots that come back."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from checking_subjects import make_subject, served
from goldens import TIMES
from pytest_openenv_scale.checks import subject as subjects
from pytest_openenv_scale.checks.background import SingleSession, single_session
from pytest_openenv_scale.checks.preflight import hold as preflight_hold
from pytest_openenv_scale.checks.preflight import questions
from pytest_openenv_scale.checks.preflight.hold import HeldSession, HoldResult, SlotsReturned, hold, quiet_s
from pytest_openenv_scale.checks.preflight.judge import (
    quiet_sessions,
    second_session,
    sessions_fit,
    slots_returned,
    within_stock_limits,
)
from pytest_openenv_scale.checks.run import run_check
from pytest_openenv_scale.checks.session import Answer
from pytest_openenv_scale.config.workload import Workload
from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult, Transcript
from scripted_server import PING, PONG, TEXT, Peer, error, frame, observation, scripted

pytestmark = pytest.mark.usefixtures("quick_waits")

MET, MISSED, INCONCLUSIVE, SKIPPED = CheckOutcome
SERVER = Endpoint(("http://127.0.0.1:1",), "here", "http://127.0.0.1:1")
FULL = Answer(
    "error", {"max_sessions": 4, "active_sessions": 4}, "CAPACITY_REACHED", "Server at capacity: 4/4 sessions"
)

OPENED = Answer("opened", latency_s=0.002)
LET_IN = Answer("observation", latency_s=0.001)


def stepping(count: int, *, step: Answer = LET_IN, reset_s: float = 0.001, pids: int = 0) -> tuple[HeldSession, ...]:
    """So many sessions that were let in and got this answer to their step, spread over so many processes."""
    observations = [{"observation": {"pid": 100 + number % pids}} if pids else {} for number in range(count)]
    return tuple(
        HeldSession(OPENED, replace(LET_IN, latency_s=reset_s), replace(step, data=observation))
        for observation in observations
    )


ALL_IN = HoldResult(
    requested=4,
    sessions=stepping(4),
    untried=0,
    extra_answer=Answer("observation"),
    limit=None,
    full=False,
    opened_s=0.05,
    patience_s=15.0,
    cut_short=False,
    closed=SlotsReturned(4, 4, 0.01),
    dropped=None,
    refused_transcript=None,
)
ONE_IN = replace(ALL_IN, requested=1, sessions=stepping(1))


def refused(
    held_count: int, requested: int, answer: Answer = FULL, phase: str = "reset", *, pids: int = 0, **changes
) -> HoldResult:
    """So many sessions held of those that were asked for; the others got this answer."""
    failure = HeldSession(OPENED, answer) if phase == "reset" else HeldSession(answer)
    sessions = (*stepping(held_count, pids=pids), *[failure] * (requested - held_count))
    limit = answer.data.get("max_sessions")
    return replace(ALL_IN, requested=requested, sessions=sessions, extra_answer=None, limit=limit, **changes)


@pytest.fixture
def hurried(monkeypatch):
    """Waits for slots end soon."""
    monkeypatch.setattr(preflight_hold, "SLOT_RETURN_S", 0.5)
    monkeypatch.setattr(preflight_hold, "LATE_SLOT_S", 0.5)


# Sessions held at once


async def test_all_that_fit_are_held_and_step_at_once():
    async with served(limit=16) as url:
        holding = await hold(make_subject(url), 6)
    assert (holding.requested, holding.held, holding.failures, holding.limit, holding.full) == (6, 6, [], None, False)
    assert holding.extra_answer is not None
    assert holding.extra_answer.good
    assert all(session.connect.latency_s and session.reset.latency_s for session in holding.sessions)
    assert (len(holding.sessions), holding.fitting) == (6, 6)
    assert (holding.closed.released, holding.closed.returned, holding.dropped) == (6, 6, None)


async def test_past_the_limit_the_server_is_full_and_a_dropped_session_makes_room(golden):
    async with served(limit=4) as url:
        holding = await hold(make_subject(url), 6)
    assert (holding.held, len(holding.refused), holding.limit, holding.full, holding.taken_by_others) == (
        4,
        2,
        4,
        True,
        0,
    )
    assert holding.refused[0].last_answer.code == "CAPACITY_REACHED"
    assert (holding.closed.returned, holding.dropped.returned) == (4, 1)
    golden(holding.refused_transcript.title)


async def test_a_server_that_holds_exactly_what_is_asked_is_found_full_by_one_session_more():
    async with served(limit=4) as url:
        holding = await hold(make_subject(url), 4)
    assert (holding.held, holding.failures, holding.extra_answer.code, holding.full) == (
        4,
        [],
        "CAPACITY_REACHED",
        True,
    )
    assert holding.dropped.returned == 1


async def test_a_slot_that_a_dropped_session_keeps_is_missed(hurried):
    async with served("leaked_slots", 4) as url:
        holding = await hold(make_subject(url), 4)
    assert (holding.closed, holding.dropped.returned) == (SlotsReturned(3, 3, holding.closed.took_s), 0)
    result = slots_returned(holding)
    assert (result.outcome, result.figures["dropped_back"]) == (MISSED, 0)
    assert "no slot came back" in result.headline
    assert "dropped without goodbye" in result.headline


async def test_slots_that_closed_sessions_keep_are_missed(hurried):
    async with served("leaked_slots_on_close", 8) as url:
        result = slots_returned(await hold(make_subject(url), 8))
    assert result.outcome is MISSED
    assert "after all were closed" in result.headline


@asynccontextmanager
async def someone_else(url: str):
    """Another client's session on the server."""
    async with make_subject(url).client() as client:
        session = await client.start()
        assert session.first_answer.kind == "observation"
        yield session


async def test_a_slot_on_its_way_back_is_waited_for():
    async with served(limit=4) as url, someone_else(url) as other:
        task = asyncio.create_task(hold(make_subject(url), 4))
        await asyncio.sleep(0.3)
        assert not task.done()
        other.drop()
        holding = await task
    assert (holding.held, holding.failures) == (4, [])


async def test_slots_that_others_hold_are_told_apart(golden, hurried):
    async with served(limit=4) as url, someone_else(url):
        holding = await hold(make_subject(url), 4)
    assert (holding.held, holding.taken_by_others, holding.full, holding.dropped) == (3, 1, False, None)
    result = sessions_fit(holding, SERVER)
    assert result.outcome is MISSED
    golden(result.headline)
    golden(result.details[0])
    assert result.remedy.startswith("end the other clients")


async def test_a_server_that_lets_the_next_ones_wait_is_not_asked_by_all_of_them(golden):
    async with served("queues_past_limit", 4) as url:
        holding = await hold(make_subject(url, timeout_s=1.0), 4 + subjects.AT_ONCE + 10)
    assert (holding.held, holding.limit) == (4, None)
    assert {failure.last_answer.kind for failure in holding.refused} == {"silence"}
    assert holding.untried > 0
    assert (holding.patience_s, holding.cut_short) == (1.0, True)
    assert len(holding.refused) + holding.untried == subjects.AT_ONCE + 10
    result = sessions_fit(holding, SERVER)
    golden(result.headline, masks=TIMES)
    assert "within 1 s" in result.headline
    golden(result.details, masks=TIMES)


@pytest.fixture
def impatient(monkeypatch):
    """A quarter of a second for an answer, and longer for a server that is slow alone."""
    monkeypatch.setattr(subjects, "_PATIENCE_S", 0.25)


def one_after_another(slow: str):
    """A server that takes 25 ms for every reset or every step, one at a time."""
    lock = asyncio.Lock()

    async def script(peer):
        await peer.accept()
        while (kind := (await peer.asked_or_pinged())["type"]) != "close":
            if kind == slow:
                async with lock:
                    await asyncio.sleep(0.025)
            peer.say(observation())
        await peer.part()

    return script


@pytest.mark.parametrize("slow", ["reset", "step"])
async def test_sessions_that_are_served_in_turn_are_waited_for(impatient, slow):
    async with scripted(one_after_another(slow)) as server:
        subject = make_subject(server.url, timeout_s=20.0, slowest_single_s=0.05)
        holding = await hold(subject, 24)
    assert max(max(s.reset.latency_s, s.step.latency_s) for s in holding.sessions) > subject.patience_s
    assert (holding.held, holding.failures, holding.fitting, holding.closed.returned) == (24, [], 24, 24)
    assert sessions_fit(holding, SERVER).outcome is MET


async def test_silence_before_the_timeout_is_not_put_down_to_it(monkeypatch, hurried):
    monkeypatch.setattr(subjects, "_PATIENCE_S", 0.8)
    async with served("queues_past_limit", 4) as url:
        holding = await hold(make_subject(url, timeout_s=20.0), 6)
    assert (holding.held, {failure.last_answer.kind for failure in holding.refused}) == (4, {"silence"})
    assert holding.patience_s < 20.0
    assert not holding.cut_short


# What is said of it


def test_what_fits_is_told_with_its_latencies(golden):
    result = sessions_fit(ALL_IN, SERVER)
    assert result.outcome is MET
    golden(result.headline)
    golden(sessions_fit(replace(ALL_IN, full=True), SERVER).headline)
    assert sessions_fit(ONE_IN, SERVER).headline.startswith("1 session fits: ")


@pytest.mark.parametrize(
    ("found", "remedy"),
    [
        (refused(4, 6, pids=1), "ENVS=6 where the server is started; 2. "),
        (refused(8, 12, pids=2), "ENVS=12 where the server is started, per worker"),
        (refused(4, 6), "ENVS=6 where the server is started; 2. "),
        (refused(4, 6, Answer("lost", code="503", loss="handshake_status"), "connect"), ""),
        (refused(4, 6, Answer("lost", code="ECONNREFUSED", loss="refused"), "connect"), "its log"),
        (refused(4, 6, Answer("error", code="FACTORY_ERROR", message="boom")), "make one in Python"),
        (refused(4, 6, Answer("closed", code="1000", loss="closed")), "log"),
        (
            replace(ALL_IN, sessions=(*stepping(3), *stepping(1, step=Answer("silence")))),
            "more workers",
        ),
    ],
)
def test_the_limit_that_refused_is_named_with_what_to_change(golden, found, remedy):
    result = sessions_fit(found, SERVER)
    assert result.outcome is MISSED
    golden(result.headline)
    assert remedy in result.remedy
    assert "p50 / p99" in result.details[0]


SILENT = Answer("silence", message="no answer within 15 s")


def test_resets_that_took_as_long_as_was_waited_are_late_and_no_sign_of_a_limit(golden):
    quick, late = refused(24, 48, SILENT), refused(24, 48, SILENT)
    late = replace(late, sessions=(*stepping(1, reset_s=14.4), *late.sessions[1:]))
    golden(sessions_fit(quick, SERVER).headline)
    result = sessions_fit(late, SERVER)
    assert "neither" not in result.headline
    assert "raise the limit" not in result.remedy
    assert "more workers or cores" in result.remedy


@pytest.mark.parametrize("cut_short", [False, True])
def test_a_longer_timeout_is_advised_only_where_one_would_have_waited_longer(cut_short):
    steps = replace(ALL_IN, sessions=(*stepping(3), *stepping(1, step=SILENT)), cut_short=cut_short)
    result = sessions_fit(steps, SERVER)
    assert "more workers or cores" in result.remedy
    assert ("timeout" in result.remedy) is cut_short


def test_what_this_machine_cannot_open_is_nobodys_fault(golden):
    short = refused(4, 6, Answer("lost", code="EMFILE", message="Too many open files", loss="client_limit"), "connect")
    result = sessions_fit(short, SERVER)
    assert result.outcome is INCONCLUSIVE
    golden(result.headline)
    assert "ulimit -n" in result.remedy


ONE = Answer("error", {"max_sessions": 1}, "CAPACITY_REACHED", "Server at capacity: 1/1 sessions active")


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        (ALL_IN, MET),
        (ONE_IN, MET),
        (replace(ONE_IN, extra_answer=ONE), MISSED),
        (refused(1, 4, ONE), MISSED),
        (refused(0, 4), INCONCLUSIVE),
    ],
)
def test_a_second_session(golden, found, outcome):
    result = second_session(found)
    assert result.outcome is outcome
    golden(result.headline)


def test_a_server_of_one_session_is_configuration_with_the_line_to_change():
    result = sessions_fit(refused(1, 64, ONE), SERVER)
    assert "configured for one session" in result.headline
    assert "3. max_concurrent_envs=64 in create_app(...)" in result.remedy
    assert [step.kind for step in result.steps] == ["attribute", "variable", "argument", "ask"]


def test_slots_without_a_session_are_no_question():
    assert slots_returned(refused(0, 4, closed=None)).outcome is SKIPPED


@pytest.mark.parametrize(
    "found",
    [
        ALL_IN,
        replace(ALL_IN, limit=4, full=True),
        refused(4, 6, Answer("silence")),
        replace(ALL_IN, limit=4, full=True, dropped=SlotsReturned(1, 1, 0.002)),
    ],
)
def test_slots_that_came_back_are_told_with_the_time_they_took(golden, found):
    result = slots_returned(found)
    assert result.outcome is MET
    golden(result.headline)


# Sessions that are left quiet, and the patience of the stock client


def forgetful(after_s: float, *, limit: int = 9, says: bool = True):
    """An environment that gives up sessions which are quiet for longer; they are not always told so."""
    heard_at: dict[int, float] = {}

    async def script(peer: Peer) -> None:
        await peer.accept()
        clock = asyncio.get_running_loop()
        while (kind := (await peer.asked_or_pinged())["type"]) != "close":
            known_peers = {number: at for number, at in heard_at.items() if clock.time() - at < after_s}
            if kind == "reset" and len(known_peers) >= limit and peer.number not in known_peers:
                peer.say(error("CAPACITY_REACHED", "full", active_sessions=limit, max_sessions=limit))
                break
            is_gone = says and kind != "reset" and peer.number not in known_peers
            heard_at[peer.number] = clock.time()
            if kind == "state":
                peer.say({"type": "state", "data": {}})
            else:
                peer.say(error("EXECUTION_ERROR", "the container was removed") if is_gone else observation())
        heard_at.pop(peer.number, None)
        await peer.part()

    return script


@pytest.mark.parametrize(("after_s", "outcome"), [(8.0, MISSED), (60.0, MET)])
async def test_sessions_that_are_gone_after_some_quiet_are_missed(golden, after_s, outcome):
    async with scripted(forgetful(after_s)) as server:
        holding = await hold(make_subject(server.url, timeout_s=20.0), 3, idle_s=5.0)
    result = quiet_sessions(holding)
    assert (result.outcome, holding.closed.returned) == (outcome, 3)
    assert result.figures["gone"] == (3 if outcome is MISSED else 0)
    golden(result.headline)
    texts = [line.text for transcript in result.transcripts for line in transcript.said]
    assert bool([text for text in texts if "container" in text]) == (outcome is MISSED)


async def test_a_full_server_that_gives_the_slots_of_quiet_sessions_away_is_missed(golden):
    async with scripted(forgetful(8.0, limit=3, says=False)) as server:
        holding = await hold(make_subject(server.url, timeout_s=20.0), 3, idle_s=5.0)
    assert (holding.full, holding.quiet.gone, holding.quiet.slots_given_away) == (True, (), True)
    result = quiet_sessions(holding)
    assert result.outcome is MISSED
    golden(result.headline)


async def test_quiet_sessions_that_cannot_step_are_asked_for_their_state():
    workload = Workload(no_action="none")
    async with scripted(forgetful(8.0)) as server:
        holding = await hold(make_subject(server.url, timeout_s=20.0, workload=workload), 2, idle_s=5.0)
    assert holding.quiet.count == 2
    assert quiet_sessions(holding).outcome is MET  # This one's state is there in any case.


async def test_of_slow_sessions_that_were_quiet_two_step_and_the_others_tell_their_state():
    async with scripted(forgetful(8.0)) as server:
        found = await hold(make_subject(server.url, timeout_s=20.0, slowest_single_s=1.5), 4, idle_s=5.0)
    assert (len(found.quiet.gone), quiet_sessions(found).outcome) == (2, MISSED)


async def test_without_quiet_nothing_is_said_of_it():
    async with served(limit=4) as url:
        holding = await hold(make_subject(url), 2)
    assert quiet_sessions(holding).outcome is SKIPPED


def test_quiet_lasts_longer_than_the_servers_pauses_between_two_looks():
    assert [quiet_s(idle) for idle in (0.0, 5.0, 60.0)] == [0.0, 10.0, 75.0]


def answering_pings(after_s: float | None):
    """An environment whose sessions answer pings so late, or never."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        while (frame_heard := await peer.hear())[0] == PING or b"close" not in frame_heard[1]:
            if frame_heard[0] == TEXT:
                peer.say({"type": "state", "data": {}} if b"state" in frame_heard[1] else observation())
            elif after_s is not None:
                asyncio.get_running_loop().call_later(after_s, peer.send, frame(PONG, frame_heard[1]))
        await peer.part()

    return script


@pytest.mark.parametrize(("after_s", "outcome"), [(0.0, MET), (15.0, MET), (None, MISSED)])
async def test_pings_are_answered_while_sessions_step(after_s, outcome):
    async with scripted(answering_pings(after_s)) as server:
        subject = make_subject(server.url, timeout_s=30.0)
        holding = await hold(subject, 2)
        result = within_stock_limits(holding, await subject.learn(single_session))
    assert result.outcome is outcome
    assert result.figures["unanswered_pings"] == (2 if after_s is None else 0)
    if after_s is not None:
        assert after_s <= result.figures["slowest_pong_s"] < after_s + 5.0


async def test_a_session_that_ends_in_its_step_is_no_ping_without_an_answer():
    async def script(peer: Peer) -> None:
        await peer.accept()
        while (message := await peer.asked_or_pinged(pong=False))["type"] != "close":
            if message["type"] == "step" and peer.number:
                peer.writer.transport.abort()
                return
            peer.say(observation())
        await peer.part()

    async with scripted(script) as server:
        holding = await hold(make_subject(server.url), 2)
    assert ([session.step.kind for session in holding.sessions], holding.pongs) == (["lost", "lost"], ())


async def test_pings_that_had_no_time_to_be_answered_are_no_fault_of_the_server():
    async with scripted(answering_pings(None)) as server:
        subject = make_subject(server.url, timeout_s=60.0)
        single = await subject.learn(single_session)
        subject.deadline = time.monotonic() + 5.5
        holding = await hold(subject, 2)
    assert (holding.cut, holding.held) == ("stepping", 2)
    assert within_stock_limits(holding, single).outcome is MET


SINGLE = SingleSession(OPENED, LET_IN, (LET_IN,), Answer("silence"), (), Answer("closed"), Transcript("", ()))


@pytest.mark.parametrize(
    ("found", "single"),
    [
        (replace(ALL_IN, pongs=(0.1, 0.2)), SINGLE),
        (replace(ALL_IN, sessions=(HeldSession(replace(OPENED, latency_s=10.5), LET_IN, LET_IN),)), SINGLE),
        (replace(ALL_IN, sessions=stepping(4, step=replace(LET_IN, latency_s=61.0))), SINGLE),
        (replace(ALL_IN, sessions=stepping(4, reset_s=70.0)), SINGLE),
        (replace(ALL_IN, pongs=(0.1, 21.0)), SINGLE),
        (replace(ALL_IN, pongs=(0.1, None)), SINGLE),
        (ALL_IN, replace(SINGLE, steps=(replace(LET_IN, size_bytes=100 * 1024 * 1024 + 1),))),
        (ALL_IN, replace(SINGLE, connect=replace(OPENED, latency_s=11.0), reset=replace(LET_IN, latency_s=61.0))),
    ],
)
def test_what_the_stock_client_would_not_wait_for_is_missed(golden, found, single):
    result = within_stock_limits(found, single)
    assert result.outcome is (MET if found.pongs == (0.1, 0.2) else MISSED)
    golden(result.headline)


# A deadline


def silent(kind: str):
    """An environment that never answers messages of this type."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        while (kind_asked := (await peer.asked_or_pinged())["type"]) != "close":
            if kind_asked != kind or peer.number == 0:
                peer.say({"type": "state", "data": {}} if kind_asked == "state" else observation())
        await peer.part()

    return script


@pytest.mark.parametrize(("kind", "cut", "held_count"), [("reset", "opening", 0), ("step", "stepping", 2)])
async def test_what_is_not_over_at_the_deadline_is_cut_off_and_nobody_is_blamed(golden, kind, cut, held_count):
    async with scripted(silent(kind)) as server:
        subject = make_subject(server.url, timeout_s=60.0)
        await subject.learn(single_session)
        subject.deadline = time.monotonic() + 5.5
        holding = await hold(subject, 2)
    assert (holding.cut, holding.held) == (cut, held_count)
    assert sessions_fit(holding, SERVER).outcome is INCONCLUSIVE
    golden(sessions_fit(holding, SERVER).headline)
    assert (slots_returned(holding).unmet, quiet_sessions(holding).unmet) == ("time", "time")


def test_where_nobody_answered_before_the_time_was_up_a_second_session_is_not_judged():
    holding = replace(ALL_IN, sessions=(), untried=4, extra_answer=None, cut="opening")
    assert (second_session(holding).outcome, second_session(holding).unmet) == (SKIPPED, "time")


async def test_what_was_held_till_the_deadline_is_judged_also_where_that_takes_a_second(monkeypatch):
    def judge_in_a_second(holding: HoldResult, endpoint: Endpoint) -> CheckResult:
        subject.deadline -= 1.0
        return sessions_fit(holding, endpoint)

    sessions_fit(ALL_IN, SERVER)  # What is slow to import is there.
    monkeypatch.setattr(questions, "sessions_fit", judge_in_a_second)
    async with scripted(silent("step")) as server:
        subject = make_subject(server.url, timeout_s=60.0)
        await subject.learn(single_session)
        capacity = next(question for question in questions.questions(2) if question.name == "capacity")
        subject.deadline = time.monotonic() + 3.0
        result = await asyncio.to_thread(run_check, subject, capacity.check, capacity.needs)
    assert result.outcome is INCONCLUSIVE


async def test_what_a_server_calls_its_pid_may_be_anything():
    async def script(peer: Peer) -> None:
        await peer.accept()
        while (await peer.asked_or_pinged())["type"] != "close":
            peer.say(observation(pid=["odd"]))
        await peer.part()

    async with scripted(script) as server:
        holding = await hold(make_subject(server.url), 2)
    assert (holding.held, holding.fitting) == (2, 2)


@pytest.mark.parametrize("cut", ["opening", "stepping"])
def test_sessions_that_were_refused_before_the_time_was_up_do_not_fit(golden, cut):
    holding = refused(1, 4)
    unstepped = [replace(session, step=None) for session in holding.sessions]
    result = sessions_fit(replace(holding, sessions=tuple(unstepped), cut=cut), SERVER)
    assert result.outcome is MISSED
    golden(result.headline)
