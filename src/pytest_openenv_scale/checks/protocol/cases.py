"""What a client should not send, or rarely does, and what OpenEnv answers: the table of protocol cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_openenv_scale.config.action_schema.document import NOTHING, Document, SchemaError, Subschema

OPENENV_VERSIONS = "0.2.0 to 0.10.0"
"""The OpenEnv versions whose answers the table holds."""

ANY_ERROR = "any error"
"""An error frame, whatever its code."""

CONNECTION_LOST = "lost"
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
    """One thing a client does, `description` in a few words.

    `meaning` says what the answer is worth to a trainer. `expected` is what OpenEnv answers: the code of an error
    frame, the type of another message, or "closed" and a close code; `also_accepted` are answers that do as well.
    `message` is what is sent, None where `play.py` plays the case. `goes_on` tells whether the session must take a
    reset and a step after it. A case `before_reset` is played first in its session, all others after a reset; during
    one `with_bystander` another session is open, which must not be affected.
    """

    id: str
    description: str
    expected: str
    meaning: str
    message: str | bytes | None = None
    also_accepted: tuple[str, ...] = ()
    goes_on: bool = True
    before_reset: bool = False
    with_bystander: bool = False
    remedy: str = _AS_OPENENV


def _no_object(name: str, what: str, sent: str) -> Case:
    return Case(f"json-{name}", f"JSON that is {what}", "SESSION_ERROR", _BUG, sent, goes_on=False)


def _episode(name: str, what: str, openenv: str = "observation", *, first: bool = False) -> Case:
    return Case(name, what, openenv, _LOOP, also_accepted=("EXECUTION_ERROR",), before_reset=first, remedy=_EPISODE)


def _action(name: str, what: str) -> Case:
    return Case(name, what, "VALIDATION_ERROR", _POLICY, remedy=_FIELDS)


def _enormous(name: str, what: str, openenv: str) -> Case:
    return Case(
        name,
        what,
        openenv,
        _HOSTILE,
        also_accepted=("observation", ANY_ERROR, "closed 1009", "closed 1000", "closed 1011", CONNECTION_LOST),
        goes_on=False,
        with_bystander=True,
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
        also_accepted=("INVALID_JSON", "VALIDATION_ERROR", "observation"),
        goes_on=False,
    ),
    Case(
        "binary-frame",
        "a binary frame",
        "SESSION_ERROR",
        _BUG,
        b'{"type":"reset","data":{}}',
        also_accepted=("observation", "closed 1003"),
        goes_on=False,
    ),
    # Messages with a field too many, too few or wrong
    Case("step-without-data", "a step without data", "VALIDATION_ERROR", _BUG, '{"type":"step"}'),
    # A server may also read over what is too much; it then does as it is asked.
    Case("state-with-data", "a state message with data", "VALIDATION_ERROR", _TYPO, also_accepted=("state",)),
    Case(
        "close-with-data",
        "a close message with data",
        "VALIDATION_ERROR",
        _TYPO,
        '{"type":"close","data":{}}',
        also_accepted=("closed 1000",),
    ),
    Case(
        "extra-field",
        "a reset with a further field",
        "VALIDATION_ERROR",
        _TYPO,
        '{"type":"reset","data":{},"id":5}',
        also_accepted=("observation",),
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
"""Every case, in the order the suite plays them."""

Schema = Mapping[str, Any]

_SCALARS = frozenset(("string", "number", "integer", "boolean", "null"))
_NUMBERS = frozenset(("number", "integer"))
_UNUSED_FIELD = "no_such_field"


class CaseNotApplicableError(Exception):
    """A case cannot be played, as the server lacks what it needs; the text says what."""


@dataclass(frozen=True, slots=True)
class _ActionSchema:
    """The schema of an action, and for each field the schemas of which it has to fit one, references resolved."""

    schema: Schema
    fields: Mapping[str, list[Schema]]

    @property
    def forbids_extra_fields(self) -> bool:
        """Whether an action may have no other fields."""
        return self.schema.get("additionalProperties") == NOTHING

    @property
    def unused_name(self) -> str:
        """A name that no field has."""
        name = _UNUSED_FIELD
        while name in self.fields:
            name += "_"
        return name


def _read_schema(schema: Schema | None) -> _ActionSchema:
    """Return the schema of an action, which must be an object.

    Raises:
        CaseNotApplicableError: there is no schema, or it names no fields.
    """
    if schema is None:
        raise CaseNotApplicableError("it publishes no /schema of its actions")
    try:
        document = Document(schema)
        action = document.resolve(document.root) or document.root
    except SchemaError:
        raise CaseNotApplicableError("its /schema cannot be followed") from None
    if "properties" not in action.schema:
        raise CaseNotApplicableError("its /schema does not say which fields an action has")
    fields = {name: action.child("properties", name) for name in action.schema["properties"]}
    return _ActionSchema(action.schema, {name: _alternatives(field, document) for name, field in fields.items()})


def unknown_field(schema: Schema | None, action: Mapping[str, Any]) -> dict[str, Any]:
    """Return the action with a field more.

    Raises:
        CaseNotApplicableError: the schema is not known, or allows further fields.
    """
    known = _read_schema(schema)
    if not known.forbids_extra_fields:
        raise CaseNotApplicableError("its /schema allows actions further fields (no additionalProperties: false)")
    return {**action, known.unused_name: 1}


def wrapped_action(schema: Schema | None, action: Mapping[str, Any]) -> dict[str, Any]:
    """Return the action inside an object, as `POST /step` takes it and `/ws` does not.

    Raises:
        CaseNotApplicableError: the schema is not known, has a field `action`, or allows an object without any field.
    """
    known = _read_schema(schema)
    if "action" in known.fields:
        raise CaseNotApplicableError("its actions have a field named action")
    if not known.forbids_extra_fields and not known.schema.get("required"):
        raise CaseNotApplicableError("its /schema allows actions further fields and requires none")
    return {"action": dict(action)}


def wrong_type(schema: Schema | None, action: Mapping[str, Any]) -> dict[str, Any]:
    """Return the action with an object where the schema has a plain value, or a list where it has an object.

    Raises:
        CaseNotApplicableError: the schema is not known, or has no field whose type says enough.
    """
    kinds = {name: _json_types(parts) for name, parts in _read_schema(schema).fields.items()}
    for accepted, wrong in ((_SCALARS, {"not": "a plain value"}), (frozenset({"object"}), ["not an object"])):
        for name in kinds:
            if kinds[name] and kinds[name] <= accepted:
                return {**action, name: wrong}
    raise CaseNotApplicableError("its /schema has no action field of a plain type")


def out_of_range(schema: Schema | None, action: Mapping[str, Any]) -> dict[str, Any]:
    """Return the action with a number below its minimum or, where none has one, above its maximum.

    Raises:
        CaseNotApplicableError: the schema is not known, or no number of it has a bound.
    """
    fields = _read_schema(schema).fields
    for bound, beyond in (("minimum", -1), ("exclusiveMinimum", -1), ("maximum", 1), ("exclusiveMaximum", 1)):
        for name, parts in fields.items():
            limit = next((part[bound] for part in parts if bound in part), None)
            # A bound so large that adding one does not change it cannot be exceeded.
            if isinstance(limit, int | float) and limit + beyond != limit and _json_types(parts) & _NUMBERS:
                return {**action, name: limit + beyond}
    raise CaseNotApplicableError("its /schema has no action field with a minimum or a maximum")


def long_text(schema: Schema | None, action: Mapping[str, Any], characters: int) -> dict[str, Any]:
    """Return the action with a text of this many characters, in a field that takes any text, else in an unknown one."""
    text = "x" * characters
    try:
        known = _read_schema(schema)
    except CaseNotApplicableError:
        return {**action, _UNUSED_FIELD: text}
    for name, parts in known.fields.items():
        if any(part.get("type") == ["string"] and not part.keys() & {"enum", "const", "maxLength"} for part in parts):
            return {**action, name: text}
    return {**action, known.unused_name: text}


def _json_types(parts: list[Schema]) -> set[str]:
    """Return the JSON types a field may have; empty where the schema leaves it open."""
    return {kind for part in parts for kind in part["type"]} if all("type" in part for part in parts) else set()


def _alternatives(field: Subschema, document: Document) -> list[Schema]:
    """Return the schemas of which a field has to fit one."""
    field = _resolved(field, document)
    keyword = next((word for word in ("anyOf", "oneOf") if word in field.schema), None)
    if keyword is None:
        return [field.schema]
    choices = (field.child(keyword, number) for number in range(len(field.schema[keyword])))
    return [_resolved(choice, document).schema for choice in choices]


def _resolved(node: Subschema, document: Document) -> Subschema:
    """Follow a reference within the schema, once; to a schema that says nothing where it leads nowhere."""
    try:
        return document.resolve(node) or node
    except SchemaError:
        return Subschema({}, node.pointer)
