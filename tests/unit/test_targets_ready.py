"""A server is ready when it has answered a session; what may pass is tried again, what cannot is not."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from goldens import Golden
from pytest_openenv_scale.client.session import SessionFailed
from pytest_openenv_scale.core.endpoint import ExitStatus
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.targets.common import readiness
from pytest_openenv_scale.targets.common.options import FirstSession, TargetContext
from pytest_openenv_scale.targets.common.readiness import (
    Diagnosis,
    NotReadyError,
    Watch,
    attach_s,
    start_s,
    wait_until_ready,
)
from scripted_server import Peer, observation, scripted

Script = Callable[[Iterable[SessionFailed | None]], list[tuple[str, str]]]
REFUSED = SessionFailed("connect", "refused", "ECONNREFUSED", "Connection refused")


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Let the sessions end as given, one after the other, the last for ever; lists the (url, mode) played."""

    def script(outcomes: Iterable[SessionFailed | None]) -> list[tuple[str, str]]:
        left, played = list(outcomes), list[tuple[str, str]]()

        async def play(url: str, headers: object, session: FirstSession, timeout_s: float) -> None:
            played.append((url, session.mode))
            outcome = left.pop(0) if len(left) > 1 else left[0]
            if outcome is not None:
                raise outcome

        monkeypatch.setattr(readiness, "_play_session", play)
        monkeypatch.setattr(readiness, "_PAUSE_S", 0.01)
        monkeypatch.setattr(readiness, "diagnose", lambda *args: None)
        return played

    return script


def fails(monkeypatch: pytest.MonkeyPatch, diagnosis: Diagnosis | None = None, deadline_s: float = 0.1) -> str:
    monkeypatch.setattr(readiness, "diagnose", lambda *args: diagnosis)
    with pytest.raises(TargetError) as caught:
        wait_until_ready(["http://u:p@h/x"], {}, deadline_s)
    assert "u:p" not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_url_answers_a_session_before_all_are_ready(sessions: Script) -> None:
    played = sessions([None])
    assert 0 < wait_until_ready(["http://a", "http://b"], {}, 5) < 5
    assert played == [("http://a", "ws"), ("http://b", "ws")]


@pytest.mark.parametrize(
    ("modes", "mode"), [(("ws",), "ws"), (("http",), "http"), (("ws", "http"), "ws"), (("http", "ws"), "ws")]
)
def test_the_session_is_an_http_one_only_where_nothing_else_will_be_spoken(
    sessions: Script, modes: tuple[str, ...], mode: str
) -> None:
    played = sessions([None])
    wait_until_ready(["http://a"], {}, 5, session=TargetContext(Path(), modes=modes).first_session)
    assert played == [("http://a", mode)]


@pytest.mark.parametrize("modes", [("ws",), ("http",)])
async def test_the_first_session_sends_what_was_written_for_sessions(modes: tuple[str, ...]) -> None:
    messages: list[str] = []

    async def script(peer: Peer) -> None:
        if modes == ("http",):
            await peer.head()
            messages.append((await peer.reader.readexactly(len(b'{"task":"a"}'))).decode())
            peer.send(b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{"observation":{}}')
            return
        await peer.accept()
        messages.append(json.dumps((await peer.asked())["data"], separators=(",", ":")))
        peer.say(observation())
        await peer.asked()
        await peer.part()

    session = TargetContext(Path(), modes=modes, reset={"task": "a"}).first_session
    async with scripted(script) as server:
        await asyncio.to_thread(wait_until_ready, [server.url], {}, 10, session=session)
    assert messages == ['{"task":"a"}']


def test_what_may_pass_is_tried_until_it_has_passed(sessions: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    played = sessions([REFUSED, REFUSED, None])
    monkeypatch.setattr(readiness, "diagnose", lambda *args: Diagnosis("refused", transient=True))
    wait_until_ready(["http://a"], {}, 5)
    assert len(played) == 3


def test_what_cannot_pass_fails_at_once(sessions: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    played = sessions([SessionFailed("connect", "handshake_status", "401", "no")])
    assert fails(monkeypatch, Diagnosis("asks for credentials"), 60) == "http://h/x asks for credentials"
    assert len(played) == 1


def test_what_does_not_pass_fails_at_the_deadline(sessions: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    played = sessions([REFUSED])
    assert fails(monkeypatch, Diagnosis("refused the connection", transient=True)).endswith("refused the connection")
    assert len(played) > 1


def test_trying_again_may_end_long_before_the_deadline(sessions: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions([REFUSED])
    monkeypatch.setattr(readiness, "diagnose", lambda *args: Diagnosis("refused", transient=True))
    began = time.monotonic()
    with pytest.raises(TargetError):
        wait_until_ready(["http://a"], {}, 60, retry_s=0.1)
    assert time.monotonic() - began < 10


def test_what_is_waited_for_is_said_and_by_which_option_longer(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silence(*args: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(readiness, "_play_session", lambda *args: asyncio.wait_for(silence(), args[-1]))
    monkeypatch.setattr(readiness, "diagnose", lambda *args: None)
    monkeypatch.setattr(readiness, "_TICK_S", 0.01)
    lines: list[str] = []
    watch = Watch("start_timeout=", lambda: "process alive, log empty", lines.append, "local: starting")
    with pytest.raises(NotReadyError) as caught:
        wait_until_ready(["http://a"], {}, 0.6, watch=watch)
    assert lines[0] == "local: starting: process alive, log empty, 0 s of 1 s"
    golden(caught.value)


def test_what_more_time_would_not_help_names_no_option(sessions: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions([REFUSED])
    for diagnosis in (Diagnosis("refused", transient=True), Diagnosis("asks for credentials")):
        monkeypatch.setattr(readiness, "diagnose", lambda *args, diagnosis=diagnosis: diagnosis)
        with pytest.raises(NotReadyError) as caught:
            wait_until_ready(["http://a"], {}, 60, retry_s=0.1, watch=Watch())
        assert str(caught.value) == f"http://a {diagnosis.text}"


@pytest.mark.parametrize(
    ("start_timeout", "timeout_s", "starts", "attaches"),
    [(None, None, 60, 30), (None, 5, 60, 5), (None, 300, 300, 300), (7, 300, 7, 300), (600, 5, 600, 5)],
)
def test_no_constant_outranks_what_was_written(
    start_timeout: float | None, timeout_s: float | None, starts: float, attaches: float
) -> None:
    context = TargetContext(Path(), timeout_s=timeout_s)
    assert start_s(start_timeout, context) == starts
    assert attach_s(context) == attaches


def test_a_server_that_has_ended_is_not_waited_for(golden: Golden, sessions: Script) -> None:
    sessions([REFUSED])
    ended = ExitStatus.from_returncode(1)
    with pytest.raises(NotReadyError) as caught:
        wait_until_ready(["http://a"], {}, 60, lambda: ended)
    golden(caught.value)
    assert caught.value.exit is ended


def test_a_target_adds_what_it_knows_to_what_was_not_ready(golden: Golden) -> None:
    running = NotReadyError("http://h", "is full")
    ended = NotReadyError("http://h", "refused", ExitStatus.from_returncode(-9))
    texts = [
        str(
            error.target_error(
                "x:y", server="the box", at="the box at http://h", hint="; wait", with_log="{}\nlog".format
            )
        )
        for error in (running, ended)
    ]
    golden(texts)
    assert str(running.target_error("x:y", with_log=str)) == "target x:y: http://h is full"


@pytest.mark.parametrize(
    "failure",
    [
        ("reset", "capacity", "CAPACITY_REACHED", "Server at capacity: 2/2 sessions active. Cannot"),
        ("reset", "capacity", "CAPACITY_REACHED", None),
        ("reset", "environment", "FACTORY_ERROR", "no GPU"),
        ("reset", "timeout", None, "x"),
        ("reset", "closed_early", "1000", "bye"),
        ("reset", "protocol", None, "a reply that is not JSON: 'hi'"),
        ("connect", "client_limit", "EMFILE", "Too many open files"),
        ("reset", "protocol", "1009", "message longer than 256 MiB"),
    ],
)
def test_a_session_that_fails_after_the_handshake_is_told_by_how_it_failed(
    golden: Golden,
    sessions: Script,
    monkeypatch: pytest.MonkeyPatch,
    failure: tuple[str, str, str | None, str | None],
) -> None:
    sessions([SessionFailed(*failure)])
    golden(fails(monkeypatch))


def test_a_header_that_the_server_repeats_is_not_shown(
    golden: Golden, sessions: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions([SessionFailed("reset", "environment", "DENIED", "Bearer hunter2-hunter2 is not for this")])
    monkeypatch.setattr(readiness, "diagnose", lambda *args: None)
    with pytest.raises(TargetError) as caught:
        wait_until_ready(["http://h"], {"Authorization": "Bearer hunter2-hunter2"}, 0.1)
    golden(caught.value)


async def test_it_may_be_waited_for_while_an_event_loop_runs_in_this_thread(sessions: Script) -> None:
    sessions([None])
    wait_until_ready(["http://a"], {}, 5)
    await asyncio.sleep(0)


def test_an_interrupt_ends_the_wait_and_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled, playing = threading.Event(), threading.Event()

    async def play(*args: object) -> None:
        playing.set()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    monkeypatch.setattr(readiness, "_play_session", play)
    interrupter = threading.Thread(target=lambda: playing.wait() and os.kill(os.getpid(), signal.SIGINT))
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        wait_until_ready(["http://a"], {}, 60)
    interrupter.join()
    assert cancelled.is_set()
