"""The promises of a server, each tried by a handful of sessions: what a defect breaks, and what it must not."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from statistics import median
from typing import Any

from . import client as clients
from .client import Client, opened, several


async def gets_in(address: str) -> bool:
    """Whether a session gets in within the time a slot may take to be free."""
    deadline = time.monotonic() + clients.FREE_S
    while True:
        async with opened(address) as client:
            answer = await client.ask("reset", {})
            if answer["type"] == "observation":
                await client.close()
                return True
        if time.monotonic() > deadline or answer["type"] == "silence":
            return False
        await asyncio.sleep(0.02)


# Isolation


async def keeps_states_apart(address: str, limit: int) -> bool:
    async with several(address, 3) as clients:
        for number, client in enumerate(clients):
            for _ in range(number):
                await client.step()
        states = [await client.state() for client in clients]
        if all(one.get("code") == "UNKNOWN_TYPE" for one in states):
            return True
        return states == [{"episode_id": f"e{number}", "step_count": number} for number in range(3)]


async def keeps_observations_apart(address: str, limit: int) -> bool:
    async with several(address, 3) as clients:
        observations = [
            await asyncio.gather(*(client.step(f"{number} {step}", 0.02) for number, client in enumerate(clients)))
            for step in (1, 2)
        ]
        return [[(one["step"], one["text"]) for one in row] for row in observations] == [
            [(step, f"{number} {step}") for number in range(3)] for step in (1, 2)
        ]


async def starts_fresh(address: str, limit: int) -> bool:
    async with several(address, 1) as [client]:
        await client.step()
    async with opened(address) as client:
        before = await client.ask("state")
        first = (await client.ask("reset", {}))["data"]["observation"]
        after = await client.ask("state")
        await client.close()
    fresh = {"episode_id": None, "step_count": 0}
    has_state = before["type"] == "state"
    return first["step"] == 0 and (not has_state or (before["data"] == fresh and after["data"]["step_count"] == 0))


async def repeats_itself(address: str, limit: int) -> bool:
    async def values(client: Client) -> list[Any]:
        first = (await client.ask("reset", {"seed": 7}))["data"]["observation"]
        return [first["value"], *[(await client.step())["value"] for _ in range(5)]]

    async with several(address, 1) as [client]:
        alone = await values(client)
    async with several(address, 4) as clients:
        return await asyncio.gather(*map(values, clients)) == [alone] * 4


# Capacity


async def refuses_at_once(address: str, limit: int) -> bool:
    async with several(address, limit), opened(address) as extra:
        answer = await extra.hear()
        data = answer["data"]
        return (
            data.get("code") == "CAPACITY_REACHED"
            and (data["active_sessions"], data["max_sessions"]) == (limit, limit)
            and (await extra.hear()) == {"type": "closed", "data": {"code": 1000}}
        )


async def works_while_full(address: str, limit: int) -> bool:
    async with several(address, limit) as clients, opened(address):
        return "value" in await clients[0].step()


async def returns_closed_slots(address: str, limit: int) -> bool:
    for _ in range(5):
        async with several(address, 1):
            pass
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(opened(address)) for _ in range(limit)]
        inside = [(await client.ask("reset", {}))["type"] for client in clients]
        for client in clients:
            if client.connection.close_code is None:
                await client.close()
    return inside == ["observation"] * limit


async def returns_dropped_slots(address: str, limit: int) -> bool:
    async with AsyncExitStack() as stack:
        for _ in range(limit):
            client = await stack.enter_async_context(opened(address))
            await client.ask("reset", {})
            client.drop()
    return await gets_in(address)


# Protocol


async def answers_unknown_types(address: str, limit: int) -> bool:
    return await _answered(address, '{"type": "frobnicate"}')


async def answers_bad_json(address: str, limit: int) -> bool:
    return await _answered(address, "{not json")


async def _answered(address: str, text: str) -> bool:
    async with opened(address) as client:
        if (await client.say(text))["type"] != "error":
            return False
        return (await client.ask("reset", {}))["type"] == "observation"


async def survives_bad_json(address: str, limit: int) -> bool:
    async with opened(address) as client:
        await client.say("{not json")
    try:
        return await gets_in(address)
    except OSError:
        return False


async def uses_openenv_codes(address: str, limit: int) -> bool:
    async with several(address, 1) as [client]:
        wrong = await client.ask("step", {"no_such_field": 1})
        return wrong["data"]["code"] == "VALIDATION_ERROR" and wrong["data"]["errors"][0]["loc"] == ["no_such_field"]


async def has_state(address: str, limit: int) -> bool:
    async with several(address, 1) as [client]:
        return await client.state() == {"episode_id": "e0", "step_count": 0}


async def depends_on_the_seed(address: str, limit: int) -> bool:
    async with several(address, 1) as [client]:
        first, second = [(await client.ask("reset", {"seed": seed}))["data"]["observation"] for seed in (1, 2)]
        return first != second


# Time


async def stays_as_fast(address: str, limit: int) -> bool:
    async with several(address, 1) as [client]:

        async def fastest() -> float:
            """Of several steps: what other processes do to single steps is not the server's."""
            latencies: list[float] = []
            for _ in range(30):
                began = time.perf_counter()
                await client.step()
                latencies.append(time.perf_counter() - began)
            return min(latencies)

        first = await fastest()
        await asyncio.sleep(0.4)
        last = await fastest()
    return last < first + 0.0015 or last < 1.5 * first


async def is_fair(address: str, limit: int) -> bool:
    async with several(address, 8) as clients:
        counts = [0] * len(clients)

        async def play(number: int) -> None:
            while median(counts) < 10:
                await clients[number].step("", 0.005)
                counts[number] += 1

        await asyncio.gather(*map(play, range(len(clients))))
        return min(counts) >= median(counts) / 3


async def stays_responsive(address: str, limit: int) -> bool:
    def look() -> float:
        began = time.perf_counter()
        with urllib.request.urlopen(f"http://{address}/health", timeout=60) as answer:
            assert json.load(answer) == {"status": "healthy"}
        return time.perf_counter() - began

    async with several(address, 8) as clients:
        steps = [asyncio.ensure_future(client.step("", 0.15)) for client in clients]
        await asyncio.sleep(0.05)
        slowest = await asyncio.to_thread(look)
        await asyncio.gather(*steps)
    return slowest < 0.5


Promise = Callable[[str, int], Awaitable[bool]]

PROMISES: tuple[Promise, ...] = (
    keeps_states_apart,
    keeps_observations_apart,
    starts_fresh,
    repeats_itself,
    refuses_at_once,
    works_while_full,
    returns_closed_slots,
    returns_dropped_slots,
    answers_unknown_types,
    answers_bad_json,
    survives_bad_json,
    uses_openenv_codes,
    has_state,
    depends_on_the_seed,
    stays_as_fast,
    is_fair,
    stays_responsive,
)
