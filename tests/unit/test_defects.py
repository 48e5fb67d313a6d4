"""The server that can be broken: sound until asked, and each defect breaks its own promise and keeps the others."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
from websockets.exceptions import WebSocketException

from defects import client as clients
from defects import promises
from defects.client import Client, opened, several
from defects.planted import DEFECTS
from defects.planted_slots import SlowlyLeakedSlots
from defects.running import TESTS, in_process, in_thread
from goldens import Golden

LIMIT = 8
RESOURCES = {"memory_per_step", "memory_per_session", "thread_per_session", "descriptor_per_session"}

BREAKS: dict[str, set[promises.Promise]] = {
    "none": set(),
    "shared_state": {
        promises.keeps_states_apart,
        promises.keeps_observations_apart,
        promises.starts_fresh,
        promises.repeats_itself,
    },
    "shared_record": {promises.keeps_states_apart, promises.starts_fresh},
    "sequential_state": {promises.starts_fresh},
    "global_random": {promises.repeats_itself},
    "leaked_slots": {promises.returns_dropped_slots},
    "leaked_slots_on_close": {promises.returns_closed_slots},
    # Of so few sessions none keeps its slot.
    "slowly_leaked_slots": set(),
    "leaked_every_fortieth_slot": set(),
    "deadlock_past_limit": {promises.refuses_at_once, promises.works_while_full},
    "queues_past_limit": {promises.refuses_at_once},
    "silent_hang": {promises.answers_unknown_types},
    "crash_on_bad_json": {promises.answers_bad_json, promises.survives_bad_json},
    "crash_session_on_bad_json": {promises.answers_bad_json},
    "wrong_code": {promises.uses_openenv_codes},
    **{defect: set() for defect in sorted(RESOURCES)},
    "slower_with_time": {promises.stays_as_fast},
    "unfair_lock": {promises.is_fair},
    "blocking_step": {promises.stays_responsive},
    "no_seed": {promises.depends_on_the_seed},
    "rare_event": set(),
    "chance": {promises.repeats_itself},
    "no_state": {promises.has_state},
}


@contextmanager
def serving(defect: str) -> Iterator[str]:
    """The server where it can do no harm to the tests."""
    if defect == "crash_on_bad_json":
        with in_process(defect, LIMIT) as (_, address):
            yield address
    else:
        with in_thread(defect, LIMIT) as address:
            yield address


async def is_kept(promise: promises.Promise, address: str) -> bool:
    try:
        return await asyncio.wait_for(promise(address, LIMIT), 60)
    except (AssertionError, OSError, TimeoutError, WebSocketException):
        return False


async def broken(defect: str, tried: list[promises.Promise]) -> set[promises.Promise]:
    """Those of the promises that one server with this defect breaks."""
    with serving(defect) as address:
        return {promise for promise in tried if not await is_kept(promise, address)}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a promise is expected to be broken, what comes late need not be waited for."""
    monkeypatch.setattr(clients, "ANSWER_S", 0.5)
    monkeypatch.setattr(clients, "FREE_S", 0.5)


def test_what_each_defect_breaks_is_written_down() -> None:
    assert set(BREAKS) | {"one_session"} == set(DEFECTS)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("defect", [defect for defect in BREAKS if BREAKS[defect]])
async def test_a_defect_breaks_its_promise(defect: str) -> None:
    for promise in BREAKS[defect]:
        assert await broken(defect, [promise]) == {promise}


@pytest.mark.parametrize("defect", BREAKS)
async def test_a_defect_keeps_every_other_promise(defect: str) -> None:
    other_promises = [promise for promise in promises.PROMISES if promise not in BREAKS[defect]]
    if defect in ("leaked_slots_on_close", "leaked_every_fortieth_slot"):
        # Whatever is tried uses up its slots: a server each.
        broken_promises = [await broken(defect, [promise]) for promise in other_promises]
        assert set().union(*broken_promises) == set()
    else:
        assert await broken(defect, other_promises) == set()


@pytest.mark.parametrize("defect", ["none", *sorted(RESOURCES)])
async def test_a_process_is_left_with_just_what_its_defect_leaves(defect: str) -> None:
    """Per session or step, as the defect has it; what it does not leave stays as it was after a first round."""
    with in_process(defect, LIMIT) as (pid, address):
        process = psutil.Process(pid)

        async def sessions(count: int) -> None:
            for _ in range(count):
                async with several(address, 1):
                    pass

        async def steps(count: int) -> None:
            async with several(address, 1) as [client]:
                for _ in range(count):
                    await client.step()

        await sessions(50)
        await steps(200)
        before, threads, files = process.memory_info().rss, process.num_threads(), process.num_fds()
        await sessions(200)
        between, more_threads, more_files = process.memory_info().rss, process.num_threads(), process.num_fds()
        await steps(1000)
        after = process.memory_info().rss

    print(defect, (between - before) / 200, (after - between) / 1000, more_threads - threads, more_files - files)
    assert (more_threads - threads >= 190) == (defect == "thread_per_session")
    assert (more_files - files >= 190) == (defect == "descriptor_per_session")
    assert (after - between > 6_000_000) == (defect == "memory_per_step")
    assert (between - before > 10_000_000) == (defect == "memory_per_session")


async def test_a_server_for_one_session_is_full_with_one_whatever_is_asked_for() -> None:
    with in_thread("one_session", LIMIT) as address:
        assert await promises.refuses_at_once(address, 1)
        assert await promises.works_while_full(address, 1)


async def test_who_waits_past_the_limit_gets_the_next_free_slot() -> None:
    for defect in ("queues_past_limit", "deadlock_past_limit"):
        with in_thread(defect, 1) as address:
            async with opened(address) as first, opened(address) as second:
                assert (await first.ask("reset", {}))["type"] == "observation"
                await second.connection.send('{"type": "state"}')
                await first.close()
                assert (await second.hear())["type"] == "state"


async def test_a_deadlock_ends_when_the_client_that_waits_leaves() -> None:
    with in_thread("deadlock_past_limit", 1) as address:
        async with several(address, 1) as [client]:
            async with opened(address):
                assert await client.step() == {"type": "silence", "data": {}}
                # Only steps take the lock: the answer to the silent one is still to come.
            assert (await client.hear())["data"]["observation"]["step"] == 1


async def test_a_session_that_gets_slower_holds_no_other_up() -> None:
    with in_thread("slower_with_time") as address:
        async with several(address, 1) as [old]:
            began = time.monotonic()
            while time.monotonic() - began < 1.0:
                await old.step()
            async with several(address, 1) as [young]:
                latencies_by_client: dict[Client, list[float]] = {old: [], young: []}
                for _ in range(5):
                    for client, latencies in latencies_by_client.items():
                        sent_at = time.monotonic()
                        await client.step()
                        latencies.append(time.monotonic() - sent_at)
            # The fastest of each: what other processes do to single steps is not the server's.
            assert min(latencies_by_client[old]) >= 0.015
            # A second older is 20 ms slower; with one clock for all they would be alike.
            assert min(latencies_by_client[young]) + 0.01 < min(latencies_by_client[old])


async def test_an_episode_ends_with_its_twentieth_step_and_stays_ended() -> None:
    with in_thread() as address:
        async with several(address, 1) as [client]:
            answers = [await client.ask("step", {}) for _ in range(22)]
            assert [answer["data"]["done"] for answer in answers] == [False] * 19 + [True] * 3
            assert await client.state() == {"episode_id": "e0", "step_count": 22}
            assert (await client.ask("reset", {}))["data"]["done"] is False


WRONG = [
    ('{"type": "step"}', "VALIDATION_ERROR", True),
    ('{"type": "step", "data": {"wait_seconds": -1}}', "VALIDATION_ERROR", True),
    ('{"type": "step", "data": {"wait_seconds": 1e9}}', "VALIDATION_ERROR", True),
    ('{"type": "step", "data": {"wait_seconds": NaN}}', "VALIDATION_ERROR", True),
    ('{"type": "step", "data": {"wait_seconds": "soon", "text": 5, "metadata": 1}}', "VALIDATION_ERROR", True),
    ('{"type": "step", "data": []}', "VALIDATION_ERROR", True),
    ('{"type": "state", "data": {}}', "VALIDATION_ERROR", True),
    ('{"type": "close", "data": {}}', "VALIDATION_ERROR", True),
    ('{"type": "reset", "data": {}, "id": 5}', "VALIDATION_ERROR", True),
    ('{"type": "reset", "data": {"seed": {}}}', "EXECUTION_ERROR", True),
    ('{"data": {}}', "UNKNOWN_TYPE", True),
    ('{"type": ["reset"]}', "UNKNOWN_TYPE", True),
    ("", "INVALID_JSON", True),
    ("[1, 2]", "SESSION_ERROR", False),
    ("null", "SESSION_ERROR", False),
    (b'{"type": "reset"}', "SESSION_ERROR", False),
    ("[" * 100_000, "SESSION_ERROR", False),
]


async def test_what_is_wrong_is_answered_as_openenv_answers_it() -> None:
    with in_thread() as address:
        for text, code, usable in WRONG:
            async with opened(address) as client:
                answer = await client.say(text)
                assert (answer["type"], answer["data"]["code"]) == ("error", code), text[:80]
                assert ("errors" in answer["data"]) == (code == "VALIDATION_ERROR")
                after = await client.ask("reset")
                expected = "observation" if usable else "closed"
                assert after["type"] == expected, text[:80]
                if not usable:
                    assert after["data"]["code"] == 1000


async def test_a_megabyte_of_text_is_echoed() -> None:
    with in_thread() as address:
        async with several(address, 1) as [client]:
            assert (await client.step("x" * 1_000_000))["text"] == "x" * 1_000_000


async def test_step_before_reset_and_a_reset_without_data_are_answered() -> None:
    with in_thread() as address:
        async with opened(address) as client:
            assert (await client.step())["step"] == 1
            assert (await client.ask("reset"))["data"]["observation"]["step"] == 0
            assert (await client.ask("mcp", {"jsonrpc": "2.0", "id": 3, "method": "tools/list"}))["data"]["id"] == 3
            assert await client.close() == 1000


@pytest.mark.usefixtures("impatient")
async def test_a_slow_leak_takes_a_slot_after_so_many_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SlowlyLeakedSlots, "every", 20)
    with in_thread("slowly_leaked_slots", 1) as address:
        for _ in range(20):
            assert await promises.gets_in(address)
        assert not await promises.gets_in(address)


def _http(address: str, path: str, body: object = None) -> tuple[int, object]:
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(f"http://{address}{path}", data), timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_http_requests_each_get_a_fresh_environment() -> None:
    with in_thread() as address:
        status, body = _http(address, "/reset", {"seed": 3, "episode_id": "a"})
        assert status == 200
        assert isinstance(body, dict)
        assert body["observation"]["step"] == 0
        assert _http(address, "/state") == (200, {"episode_id": None, "step_count": 0})
        status, body = _http(address, "/step", {"action": {"text": "x"}})
        assert isinstance(body, dict)
        assert (status, body["observation"]["text"]) == (200, "x")
        assert _http(address, "/step", {"text": "x"})[0] == 422
        assert _http(address, "/step", {"action": {"no": 1}})[0] == 422


async def test_the_sound_server_is_sound_under_hypercorn_too() -> None:
    with in_process("none", LIMIT, "hypercorn") as (_, address):
        assert [promise for promise in promises.PROMISES if not await is_kept(promise, address)] == []


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("defect", ["leaked_slots", "crash_on_bad_json", "silent_hang", "queues_past_limit"])
async def test_defects_that_hang_on_the_server_show_under_hypercorn_too(defect: str) -> None:
    for promise in BREAKS[defect]:
        with in_process(defect, LIMIT, "hypercorn") as (_, address):
            assert not await is_kept(promise, address), promise


def test_an_unknown_defect_is_refused_with_the_list(golden: Golden) -> None:
    environ = {**os.environ, "DEFECT": "nonsense", "PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-c", "import defects.app"]
    stderr = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False).stderr
    golden(stderr.strip().splitlines()[-1])
