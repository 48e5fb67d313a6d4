"""What differs from session to session: reset data by row or function, steps by row, actions made of observations."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from playing import failure, order, play, play_share
from pytest_openenv_scale.config.workload import ActionSource, Workload, WorkloadError, parse_action, parse_reset
from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.load.client_health import ClientStats, check_pace
from scripted_server import Peer, observation, scripted


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write a module `game` that load processes import."""

    def write(text: str) -> None:
        (tmp_path / "game.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "game", raising=False)

    yield write
    sys.modules.pop("game", None)


async def played(workload: Workload, *, steps: int = 1, batch: int = 3, **details: Any):
    """The share of a cell, and what each session said: its reset data, then its actions."""
    messages: dict[int, list[Any]] = {}

    async def script(peer: Peer) -> None:
        data = messages.setdefault(peer.number, [])
        await peer.accept()
        while (message := await peer.asked())["type"] != "close":
            data.append(message["data"])
            peer.say(observation(legal=[len(data), 7]))
        await peer.part()

    async with scripted(script) as server:
        share, _ = await play_share(order(server.url, batch=batch, steps=steps, workload=workload, **details))
    return share, [messages[number] for number in sorted(messages)]


# Reset data


async def test_row_i_of_the_reset_data_is_session_i_s(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"task": "a"}\n{"task": "b", "seed": "$seed"}\n')
    rows = parse_reset("@rows.jsonl", tmp_path)
    workload = Workload(({"move": 1},), reset=rows)
    assert [workload.reset_data(number, 10) for number in range(4)] == [
        {"task": "a"},
        {"task": "b", "seed": 11},
        {"task": "a"},
        {"task": "b", "seed": 13},
    ]
    _, messages = await played(workload, seed=10)
    assert sorted(conversation[0]["task"] for conversation in messages) == ["a", "a", "b"]


async def test_a_function_is_called_with_the_session_s_number(module):
    module("def task(session): return {'task': session * 2}")
    workload = Workload(({"move": 1},), reset=parse_reset("game:task"))
    _, messages = await played(workload)
    assert sorted(conversation[0]["task"] for conversation in messages) == [0, 2, 4]


@pytest.mark.parametrize("body", ["raise KeyError('x')", "return [1]", "return {'x': float('nan')}"])
def test_a_function_that_makes_no_reset_data_is_named_with_its_call(module, golden, body):
    module(f"def task(session): {body}")
    with pytest.raises(WorkloadError) as error:
        Workload(reset=parse_reset("game:task")).reset_data(3, 0)
    golden(error.value)


# Steps


async def test_a_line_that_is_an_array_is_the_steps_of_one_session(tmp_path):
    (tmp_path / "steps.jsonl").write_text('[{"move": 1}, {"move": 2}]\n[{"move": 3}]\n')
    action = parse_action("@steps.jsonl", tmp_path)
    assert action == ActionSource("sessions", (({"move": 1}, {"move": 2}), ({"move": 3},)))
    _, messages = await played(Workload(sessions=action.value), steps=2)
    assert sorted([step["move"] for step in conversation[1:]] for conversation in messages) == [[1, 2], [1, 2], [3, 3]]


@pytest.mark.parametrize("lines", ['{"a": 1}\n[{"a": 2}]', '[{"a": 2}]\n{"a": 1}', "[]", "[1]", '[{"a": "$wat"}]'])
def test_lines_that_are_neither_are_refused(tmp_path, golden, lines):
    (tmp_path / "steps.jsonl").write_text(lines)
    with pytest.raises(GrammarError) as error:
        parse_action("@steps.jsonl", tmp_path)
    golden(error.value)


def test_rows_of_reset_data_are_no_arrays(tmp_path, golden):
    (tmp_path / "rows.jsonl").write_text('[{"a": 2}]\n')
    with pytest.raises(GrammarError) as error:
        parse_reset("@rows.jsonl", tmp_path)
    golden(error.value)


# Actions made of observations

LEGAL = "def act(session, step, observation): return {'move': observation['legal'][0], 'of': [session, step]}"


async def test_a_function_of_three_sees_the_last_observation(module):
    module(LEGAL)
    share, messages = await played(Workload(function="game:act"), steps=2, batch=2)
    assert [row.success for row in share.rows] == [True, True]
    assert sorted((conversation[1:] for conversation in messages), key=str) == [
        [{"move": 1, "of": [number, 0]}, {"move": 2, "of": [number, 1]}] for number in range(2)
    ]
    assert share.function_s > 0


async def test_what_a_function_takes_is_in_no_latency(module):
    module("import time\ndef act(session, step, observation): time.sleep(0.2); return {'move': 1}")
    share, _ = await played(Workload(function="game:act"), steps=2, batch=1)
    (row,) = share.rows
    assert share.function_s >= 0.4
    assert max(row.step_latencies) < 0.2
    assert row.total_latency < 0.2


@pytest.mark.parametrize("mode", ["ws", "http"])
async def test_a_function_that_fails_in_a_cell_is_the_client_s_own_failure(module, mode):
    module("def act(session, step, observation): return observation['none']")
    if mode == "http":

        async def script(peer: Peer) -> None:
            await peer.head()
            await peer.reader.readexactly(2)
            body = b'{"observation":{"legal":1}}'
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

        async with scripted(script) as server:
            (row,) = await play(server.url, mode="http", workload=Workload(function="game:act"))
    else:
        share, _ = await played_until_closed(Workload(function="game:act"))
        (row,) = share.rows
    assert failure(row) == ("step", "client_limit", "action")
    assert row.error_message == "game:act(0, 0, …) raised KeyError: 'none'"


async def played_until_closed(workload: Workload):
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        peer.say(observation())
        await peer.gone()

    async with scripted(script) as server:
        return await play_share(order(server.url, workload=workload))


def test_the_guard_names_a_function_that_had_much_of_the_time():
    quiet = ClientStats(loop_lag_max_s=1.0, function_share=0.05)
    busy = ClientStats(loop_lag_max_s=1.0, function_share=0.45)
    assert "function" not in check_pace(quiet)[0].message
    assert "your function that makes actions worked 45% of the time" in check_pace(busy)[0].message
