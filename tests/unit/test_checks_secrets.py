"""What a user gave as a header is not shown, whatever a server does with it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from checking_subjects import make_subject
from pytest_openenv_scale.checks.protocol import checks as protocol_checks
from pytest_openenv_scale.checks.session import Answer, redact
from pytest_openenv_scale.checks.subject import Subject
from pytest_openenv_scale.config.workload import Workload
from pytest_openenv_scale.core.serialization import encode
from pytest_openenv_scale.core.text import Secrets
from scripted_server import CLOSE, Peer, error, frame, observation, scripted

pytestmark = pytest.mark.usefixtures("quick_waits")

TOKEN = "hf_s3cr3t/AbCdEf=="
HEADERS = {"Authorization": f"Bearer {TOKEN}", "X-Key": 'quoted "s3cr3t"', "X-Short": "s3cr3t"}


def authorization(head: bytes) -> str:
    """The value of the Authorization header of a request."""
    return next(line[15:] for line in head.decode().split("\r\n") if line.startswith("Authorization: "))


def subject_with_token(url: str) -> Subject:
    return make_subject(url, endpoint={"headers": HEADERS})


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        (f"Authorization: Bearer {TOKEN}", "Authorization: ***"),
        (f"no such token: {TOKEN}.", "no such token: ***."),
        (TOKEN.replace("/", "\\/"), "***"),
        ('a quoted "s3cr3t" word', "a *** word"),
        (json.dumps({"key": 'quoted "s3cr3t"'}), '{"key": "***"}'),
        ("a s3cr3t of six letters is in too many words", "a s3cr3t of six letters is in too many words"),
        ("Bearer", "Bearer"),
        # What servers say is cut somewhere.
        (f"who is Bearer {TOKEN[:9]}", "who is ***"),
        (f"a reply that is not JSON: {f'seen {TOKEN[:12]}'!r}", "a reply that is not JSON: 'seen ***'"),
        (f"connection lost ({TOKEN[:8]}…)", "connection lost (***…)"),
        (f"{TOKEN[:9]} is no end", f"{TOKEN[:9]} is no end"),
        (f"as short as {TOKEN[:7]}", f"as short as {TOKEN[:7]}"),
    ],
)
def test_values_are_hidden_with_their_scheme_and_without_it(text: str, redacted: str) -> None:
    assert Secrets.from_headers(HEADERS).hide(text) == redacted


def test_without_headers_nothing_is_hidden() -> None:
    assert Secrets.from_headers({}).hide("everything") == "everything"
    assert not Secrets.from_headers({}).may_be_in(b"everything")


def test_every_text_of_an_answer_is_gone_through_and_its_numbers_stay() -> None:
    answer = Answer(
        "error", {"seen": [{"by": TOKEN, "number": 12345678}], "ok": True}, f"CODE {TOKEN}", f"message {TOKEN}", 0.5
    )
    hidden = redact(Secrets.from_headers({**HEADERS, "X-Number": "12345678"}), answer)
    data = {"seen": [{"by": "***", "number": 12345678}], "ok": True}
    assert hidden == replace(answer, data=data, code="CODE ***", message="message ***")


async def test_a_server_that_repeats_the_token_is_not_repeated() -> None:
    async def script(peer: Peer) -> None:
        value = authorization(await peer.accept())
        await peer.asked()
        peer.say(observation(you={"sent": value}))
        await peer.asked()
        peer.say(error(f"NOT_{TOKEN}", f"who is {value}?", errors=[{"msg": TOKEN}]))
        await peer.asked()
        peer.say(f"no JSON, {value}")
        await peer.asked()
        peer.send(frame(CLOSE, (1008).to_bytes(2, "big") + f"go away, {TOKEN}".encode()))
        await peer.hear()
        peer.writer.close()

    async with scripted(script) as server, subject_with_token(server.url).client() as client:
        session = await client.start()
        stepped, unreadable, closed = await session.step({}), await session.state(), await session.state()
        goodbye = session.close_frame
    answers: tuple[Any, ...] = (session.first_answer, stepped, unreadable, closed, goodbye)
    assert session.first_answer.observation == {"you": {"sent": "***"}}
    assert str(stepped) == "NOT_*** (who is ***? (***))"
    assert stepped.data["errors"] == [{"msg": "***"}]
    assert unreadable.kind == "unreadable"
    assert str(closed) == str(goodbye) == "closed with 1008 (go away, ***)"
    assert TOKEN not in repr(answers)
    assert TOKEN not in json.dumps(encode(session.transcript("a session")))
    assert sum("***" in line.text for line in session.transcript("a session").said) == 4


async def test_a_refused_handshake_that_repeats_the_token_is_not_repeated() -> None:
    async def script(peer: Peer) -> None:
        value = authorization(await peer.head())
        peer.send(f"HTTP/1.1 401 {value}\r\nContent-Length: {len(value)}\r\n\r\n{value}".encode())

    async with scripted(script) as server, subject_with_token(server.url).client() as client:
        session = await client.start()
    assert (session.first_answer.kind, session.first_answer.code) == ("lost", "401")
    assert "***" in str(session.first_answer)
    assert TOKEN not in repr((session.first_answer, session.transcript("a session")))


async def test_a_token_at_the_end_of_what_is_shown_is_not_cut_in_two() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        peer.say(observation(text="x" * 330 + TOKEN + "x" * 3000))

    async with scripted(script) as server, subject_with_token(server.url).client() as client:
        session = await client.start()
    (long_text,) = [line.text for line in session.transcript("a session").said if "xxx" in line.text]
    assert "***" in long_text
    assert TOKEN[:8] not in long_text


async def test_nothing_of_it_is_in_the_result_of_a_check() -> None:
    async def script(peer: Peer) -> None:
        value = authorization(await peer.accept())
        while (message := await peer.asked())["type"] != "close":
            is_known = message["type"] in ("reset", "step", "state")
            peer.say(observation(hint=value) if is_known else error("WHO_ARE_YOU", f"unknown type, {value}"))
        await peer.part()

    async with scripted(script) as server:
        subject = subject_with_token(server.url)
        subject.workload = Workload(({},))
        result = await protocol_checks.CHECKS["unknown-type"](subject)
    assert "WHO_ARE_YOU" in result.headline
    assert any("***" in detail for detail in result.details)
    assert TOKEN not in json.dumps(result.to_json())
