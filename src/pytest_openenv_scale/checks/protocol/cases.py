"""What a client should not send, or may and rarely does, and what OpenEnv answers: the table of the protocol's cases.

OpenEnv's versions from 0.2.0 to 0.10.0 answer all of these alike. A case that needs more than one message, or one made
for the server, has nothing in `sent`: `plays.py` knows how it is played.
"""

from __future__ import annotations

from dataclasses import dataclass

VERSIONS = "0.2.0 to 0.10.0"
"""The versions whose answers the table holds."""

ANY_ERROR = "any error"
"""An error frame, whatever its code."""

CUT = "lost"
"""The connection is gone without a close frame."""

_AS_OPENENV = (
    "serve the environment with openenv's create_app, which answers this by itself; a server of your own sends "
    '{"type": "error", "data": {"code": …, "message": …}} and reads on'
)
_FIELDS = (
    "declare the action's fields with their types and limits in its Action class, and let validators raise nothing of "
    "their own: openenv then answers VALIDATION_ERROR and the session goes on"
)
_EPISODE = (
    "let __init__ leave the environment as a reset does, and let reset() begin a new episode at any time; what step() "
    "or reset() raises is answered with EXECUTION_ERROR, and the session goes on"
)
_SOCKET = "look at what stands between client and server (proxy, ASGI server): WebSocket frames (RFC 6455) do not pass"

_BUG = "A client with a bug is told what is wrong with its message; without an answer it waits until its timeout"
_TYPO = "A client of another version, or a misspelt one, is told so, instead of waiting or training on something else"
_POLICY = "What a model writes is not always a valid action: one such step must not cost the episode, or the trainer"
_HOSTILE = "Whoever reaches the port can send this; the sessions of everybody else must not notice"
_LOOP = "Loops of trainers are not all alike: this order of messages happens, and must not cost the session"


@dataclass(frozen=True, slots=True)
class Case:
    """One thing a client does.

    `what` says it in a few words, `means` what the answer is worth to a trainer. `openenv` is what OpenEnv answers: the
    code of an error frame, the type of another message, or "closed" and a close code; `also` are answers that do as
    well. `goes_on` tells whether the session must take a reset and a step after it. `first` cases are a session's first
    words, all others follow a reset; during `crowd` cases another session is open, which must not notice.
    """

    id: str
    what: str
    openenv: str
    means: str
    sent: str | bytes | None = None
    also: tuple[str, ...] = ()
    goes_on: bool = True
    first: bool = False
    crowd: bool = False
    remedy: str = _AS_OPENENV


def _no_object(name: str, what: str, sent: str) -> Case:
    return Case(f"json-{name}", f"JSON that is {what}", "SESSION_ERROR", _BUG, sent, goes_on=False)


def _episode(name: str, what: str, openenv: str = "observation", *, first: bool = False) -> Case:
    return Case(name, what, openenv, _LOOP, also=("EXECUTION_ERROR",), first=first, remedy=_EPISODE)


def _action(name: str, what: str) -> Case:
    return Case(name, what, "VALIDATION_ERROR", _POLICY, remedy=_FIELDS)


def _enormous(name: str, what: str, openenv: str) -> Case:
    return Case(
        name,
        what,
        openenv,
        _HOSTILE,
        also=("observation", ANY_ERROR, "closed 1009", "closed 1000", "closed 1011", CUT),
        goes_on=False,
        crowd=True,
        remedy="limit the size of messages where the server is started (uvicorn: --ws-max-size), "
        "and the length of texts in the Action class (max_length)",
    )


CASES = (
    # Messages that are none
    Case("bad-json", "invalid JSON", "INVALID_JSON", _BUG, "{not json"),
    Case("empty-text", "an empty text", "INVALID_JSON", _BUG, ""),
    Case("unknown-type", "a message of unknown type", "UNKNOWN_TYPE", _TYPO, '{"type":"frobnicate"}'),
    Case("no-type", "a message without type", "UNKNOWN_TYPE", _TYPO, '{"data":{}}'),
    _no_object("array", "an array", "[1, 2]"),
    _no_object("text", "a text", '"hello"'),
    _no_object("null", "null", "null"),
    _no_object("number", "a number", "42"),
    Case(
        "deep-json",
        "JSON 100,000 levels deep",
        "SESSION_ERROR",
        _HOSTILE,
        '{"type":"reset","data":{"deep":' + "[" * 100_000 + "]" * 100_000 + "}}",
        also=("INVALID_JSON", "VALIDATION_ERROR", "observation"),
        goes_on=False,
    ),
    Case(
        "binary-frame",
        "a binary frame",
        "SESSION_ERROR",
        _BUG,
        b'{"type":"reset","data":{}}',
        also=("observation", "closed 1003"),
        goes_on=False,
    ),
    # Messages with a field too many, too few or wrong
    Case("step-without-data", "a step without data", "VALIDATION_ERROR", _BUG, '{"type":"step"}'),
    # A server may also read over what is too much; it then does as it is asked.
    Case("state-with-data", "a state message with data", "VALIDATION_ERROR", _TYPO, also=("state",)),
    Case(
        "close-with-data",
        "a close message with data",
        "VALIDATION_ERROR",
        _TYPO,
        '{"type":"close","data":{}}',
        also=("closed 1000",),
    ),
    Case(
        "extra-field",
        "a reset with a further field",
        "VALIDATION_ERROR",
        _TYPO,
        '{"type":"reset","data":{},"id":5}',
        also=("observation",),
    ),
    Case("reset-data-list", "reset data that are a list", "VALIDATION_ERROR", _TYPO, '{"type":"reset","data":[1]}'),
    Case("reset-data-text", "reset data that are a text", "VALIDATION_ERROR", _TYPO, '{"type":"reset","data":"seed"}'),
    # Actions the environment does not take
    _action("unknown-action-field", "an action with an unknown field"),
    _action("invalid-action", "an action with a value of the wrong type or out of range"),
    _action("wrapped-action", "an action wrapped in {action: …}, as over HTTP"),
    _enormous("text-1-mib", "an action with 1 MiB of text", "observation"),
    _enormous("text-17-mb", "an action with 17 MB of text", "closed 1009"),
    # The right message at another time
    _episode("step-before-reset", "a step before the first reset", first=True),
    _episode("state-before-reset", "state before the first reset", "state", first=True),
    _episode("step-after-done", "a step after the episode has ended"),
    Case("reset-twice", "a reset in the middle of an episode", "observation", _LOOP, remedy=_EPISODE),
    Case("unawaited", "messages sent without waiting for answers", "state", _LOOP),
    # The socket
    Case("fragments", "a reset in three fragments with pings in between", "observation", _LOOP, remedy=_SOCKET),
    Case(
        "goodbye",
        "a close message",
        "closed 1000",
        "Without a close the server holds the session's slot for longer than the client needs it",
        '{"type":"close"}',
        goes_on=False,
    ),
    Case(
        "close-frame",
        "a close frame without a close message",
        "closed 1000",
        "Clients that end with their process say no more than this; their slots are needed by the next",
        goes_on=False,
        remedy=_SOCKET,
    ),
)
"""Every case, in the order the suite asks them."""
