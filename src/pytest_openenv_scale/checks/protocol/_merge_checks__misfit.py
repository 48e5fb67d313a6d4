"""Actions that do not fit what `/schema` says of them, made from an action that does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

Schema = Mapping[str, Any]

_SCALARS = frozenset(("string", "number", "integer", "boolean", "null"))
_FREE = "no_such_field"


class LackError(Exception):
    """The server lacks what a case needs; the text says what, from the server's own answers."""


def unknown_field(schema: Schema | None, action: Mapping[str, Any]) -> dict[str, Any]:
    """Return the action with a field more.

    Raises:
        LackError: the schema is not known, or allows further fields.
    """
    if not _is_closed(_object(schema)):
        raise LackError("its /schema allows actions further fields (no additionalProperties: false)")
    return {**action, _free_name(schema): 1}


def wrapped(schema: Schema | None, action: Mapping[str, Any]) -> dict[str, Any]:
    """Return the action inside an object, as `POST /step` takes it and `/ws` does not.

    Raises:
        LackError: the schema is not known, has a field `action`, or allows an object without any of its fields.
    """
    found = _object(schema)
    if "action" in _fields(found):
        raise LackError("its actions have a field named action")
    if not _is_closed(found) and not found.get("required"):
        raise LackError("its /schema allows actions further fields and requires none")
    return {"action": dict(action)}


def wrong_type(schema: Schema | None, action: Mapping[str, Any]) -> dict[str, Any]:
    """Return the action with an object where the schema has a plain value, or a list where it has an object.

    Raises:
        LackError: the schema is not known, or has no field whose type says enough.
    """
    found = _object(schema)
    for name, field in _fields(found).items():
        kinds = _kinds(field, found)
        if kinds and kinds <= _SCALARS:
            return {**action, name: {"not": "a plain value"}}
    for name, field in _fields(found).items():
        if _kinds(field, found) == {"object"}:
            return {**action, name: ["not an object"]}
    raise LackError("its /schema has no action field of a plain type")


def out_of_range(schema: Schema | None, action: Mapping[str, Any]) -> dict[str, Any]:
    """Return the action with a number below its minimum or, where none has one, above its maximum.

    Raises:
        LackError: the schema is not known, or no number of it has a bound.
    """
    found = _object(schema)
    for bound, beyond in (("minimum", -1), ("exclusiveMinimum", -1), ("maximum", 1), ("exclusiveMaximum", 1)):
        for name, field in _fields(found).items():
            limit = next((part[bound] for part in _alternatives(field, found) if bound in part), None)
            # Numbers so large that one more is none are no bounds to step over.
            if isinstance(limit, int | float) and limit + beyond != limit and _is_number(field, found):
                return {**action, name: limit + beyond}
    raise LackError("its /schema has no action field with a minimum or a maximum")


def long_text(schema: Schema | None, action: Mapping[str, Any], characters: int) -> dict[str, Any]:
    """Return the action with that much text in a field that takes any; where none does, in a field it has not."""
    text = "x" * characters
    try:
        found = _object(schema)
    except LackError:
        return {**action, _FREE: text}
    for name, field in _fields(found).items():
        parts = list(_alternatives(field, found))
        if any(part.get("type") == "string" and not part.keys() & {"enum", "const", "maxLength"} for part in parts):
            return {**action, name: text}
    return {**action, _free_name(schema): text}


def _object(schema: Schema | None) -> Schema:
    """Return the schema of an action that is one object."""
    if schema is None:
        raise LackError("it publishes no /schema of its actions")
    found = _resolved(schema, schema)
    if not isinstance(found.get("properties"), Mapping):
        raise LackError("its /schema does not say which fields an action has")
    # References inside are looked up from the top, wherever the object itself stands.
    return {**schema, **found}


def _fields(found: Schema) -> Mapping[str, Schema]:
    fields = cast("Mapping[str, Any]", found["properties"])
    return {name: cast("Schema", field) for name, field in fields.items() if isinstance(field, Mapping)}


def _is_closed(found: Schema) -> bool:
    return found.get("additionalProperties") is False


def _free_name(schema: Schema | None) -> str:
    name, taken = _FREE, _fields(_object(schema))
    while name in taken:
        name += "_"
    return name


def _is_number(field: Schema, root: Schema) -> bool:
    return bool(_kinds(field, root) & {"number", "integer"})


def _kinds(field: Schema, root: Schema) -> set[str]:
    """Return the JSON types a field may have; empty where the schema leaves it open."""
    kinds: set[str] = set()
    for part in _alternatives(field, root):
        kind = part.get("type")
        named = cast("list[str]", kind) if isinstance(kind, list) else [kind]
        if not all(isinstance(name, str) for name in named):
            return set()
        kinds |= set(cast("list[str]", named))
    return kinds


def _alternatives(field: Schema, root: Schema) -> Iterator[Schema]:
    """Yield the schemas of which a field has to fit one."""
    field = _resolved(field, root)
    choices = field.get("anyOf") or field.get("oneOf")
    if not isinstance(choices, list):
        yield field
        return
    for choice in cast("list[Any]", choices):
        yield _resolved(choice, root) if isinstance(choice, Mapping) else {}


def _resolved(schema: Any, root: Schema) -> Schema:
    """Follow a reference within the schema, once; `{}` where it leads nowhere."""
    if "$ref" not in schema:
        return cast("Schema", schema)
    found: Any = root
    for part in str(schema["$ref"]).removeprefix("#/").split("/"):
        found = cast("Schema", found).get(part) if isinstance(found, Mapping) else None
    return cast("Schema", found) if isinstance(found, Mapping) else {}
