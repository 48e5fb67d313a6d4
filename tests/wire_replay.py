"""The server's side of recorded conversations, and what a client has to make of a failure in them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import pytest

from pytest_openenv_scale.client.session import SessionFailed
from scripted_server import CLOSE, Peer, frame, message
from wire_cases import Conversation

Case = TypeVar("Case")


async def each(cases: Iterable[Case], play: Callable[[Case], Awaitable[None]]) -> None:
    """Play cases one after the other; every one that fails is told by its name."""
    failures: list[BaseException] = []
    for case in cases:
        try:
            await play(case)
        except (Exception, pytest.fail.Exception) as failure:
            failure.add_note(str(case))
            failures.append(failure)
    if failures:
        raise BaseExceptionGroup("not as recorded", failures)


def goodbye(closed: tuple[int, str]) -> bytes:
    """The close frame with this code and reason."""
    code, reason = closed
    return frame(CLOSE, code.to_bytes(2, "big") + reason.encode())


async def ended(peer: Peer, closed: tuple[int, str]) -> None:
    """Close as recorded, and let the client finish."""
    peer.send(goodbye(closed))
    while (await peer.hear())[0] != CLOSE:
        pass
    peer.writer.close()


async def let_go(peer: Peer, opcode: int) -> None:
    """Answer a goodbye, be it a close frame or the OpenEnv message."""
    if opcode == CLOSE:
        peer.send(goodbye((1000, "")))
        peer.writer.close()
    else:
        await ended(peer, (1000, ""))


def sayable(message: Any) -> bool:
    """Whether our client says this of itself."""
    match message:
        case {"type": "reset" | "step", "data": dict()}:
            return len(message) == 2
        case {"type": "state" | "close"}:
            return len(message) == 1
    return False


def server_of(conversation: Conversation, *, received: list[Any] | None = None) -> Callable[[Peer], Awaitable[None]]:
    """The server's side of a conversation: its answers in their order, whatever is said.

    What our client can say has to be what was said; with `heard` it may be anything, and is put there. A client
    that says goodbye is let go.
    """

    async def script(peer: Peer) -> None:
        if conversation.status != 101:
            await peer.head()
            peer.send(f"HTTP/1.1 {conversation.status} Forbidden\r\nContent-Length: 0\r\n\r\n".encode())
            return
        await peer.accept(*map(message, conversation.greeting))
        for turn in conversation.turns:
            opcode, text = await peer.hear()
            parsed_message = None if opcode == CLOSE else json.loads(text)
            if received is None:
                assert not sayable(turn.said) or parsed_message == turn.said
            elif parsed_message is not None:
                received.append(parsed_message)
            if parsed_message in (None, {"type": "close"}):
                await let_go(peer, opcode)
                return
            if turn.answer is not None:
                peer.say(turn.answer_text)
        if conversation.closed is not None:
            await ended(peer, conversation.closed)
            return
        opcode, text = await peer.hear()
        while opcode != CLOSE and json.loads(text) != {"type": "close"}:
            opcode, text = await peer.hear()
        await let_go(peer, opcode)

    return script


async def failing(awaitable: Awaitable[object]) -> SessionFailed:
    """The failure this has to end in."""
    with pytest.raises(SessionFailed) as caught:
        await awaitable
    return caught.value


def fields(failed: SessionFailed) -> tuple[str, str, str | None]:
    """Phase, type and code of a failure."""
    return failed.phase, failed.type, failed.code


def kind_of(code: str) -> str:
    """The `error_type` that a code of the server belongs to."""
    return "capacity" if code == "CAPACITY_REACHED" else "environment"
