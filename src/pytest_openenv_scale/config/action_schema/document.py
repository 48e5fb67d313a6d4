"""A schema that a server published, as a document in which every keyword has the form JSON Schema gives it.

Schemas of servers are foreign JSON: of older drafts, of OpenAPI, written by hand. What has no form of JSON Schema is
left out, so that all that reads the document may rely on it; references are JSON pointers into the document itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote, urldefrag, urljoin

from pytest_openenv_scale.core.errors import ScaleError

TYPES = ("object", "string", "integer", "number", "boolean", "array", "null")
MAX_DEPTH = 32
"""Levels of nesting up to which a schema is read, and a value made."""

NOTHING: Mapping[str, Any] = {"not": {}}
"""The schema that admits nothing, as `false` does."""

_ABSENT: Any = object()


class SchemaError(ScaleError, ValueError):
    """A part of the schema keeps a value from being made: `pointer` names it, `reason` says how."""

    def __init__(self, pointer: str, reason: str) -> None:
        super().__init__(f"{pointer}: {reason}")
        self.pointer = pointer
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Subschema:
    """One schema of a document and the JSON pointer to it: "#" is the document's own."""

    schema: Mapping[str, Any]
    pointer: str

    def child(self, *parts: str | int) -> Subschema:
        """Return the schema below this one by keyword and name or number."""
        schema: Any = self.schema
        for part in parts:
            schema = schema[part]
        return Subschema(schema, join_pointer(self.pointer, *parts))


def join_pointer(pointer: str, *parts: str | int) -> str:
    """Return the JSON pointer (RFC 6901) to what is below another by names and numbers."""
    return "/".join([pointer, *(str(part).replace("~", "~0").replace("/", "~1") for part in parts)])


class Document:
    """A published schema, read once.

    Raises:
        SchemaError: it nests deeper than `MAX_DEPTH`.
    """

    def __init__(self, schema: object) -> None:
        self._schemas: dict[str, dict[str, Any]] = {}
        self._names: dict[str, str] = {}
        self._bases: dict[str, str] = {}
        self._refused: dict[str, SchemaError] = {}
        self._followed: set[str] = set()
        self.root = Subschema(self._read(schema, "", "#", 0), "#")
        for pointer, base in self._bases.items():
            self._localize(pointer, base)
        for pointer, part in self._schemas.items():
            self._follow(Subschema(part, pointer), frozenset())

    def resolve(self, node: Subschema) -> Subschema | None:
        """Return the schema that the `$ref` of a node names; None where it has none.

        Raises:
            SchemaError: it names none in this document (others are never fetched), or has no end.
        """
        if node.pointer in self._refused:
            raise self._refused[node.pointer]
        reference: str | None = node.schema.get("$ref")
        return None if reference is None else Subschema(self._schemas[reference], reference)

    def _localize(self, pointer: str, base: str) -> None:
        """Make the reference of a schema a pointer; with one that leads nowhere it admits nothing."""
        schema = self._schemas[pointer]
        written: str = schema["$ref"]
        schema["$ref"] = self._local(base, written)
        if schema["$ref"] not in self._schemas:
            self._refuse(pointer, SchemaError(f"{pointer}/$ref", f"{written[:80]!r} leads nowhere in the schema"))

    def _follow(self, node: Subschema, path: frozenset[str]) -> None:
        """Follow what is asked of the same value; where that comes back to itself, the schema admits nothing.

        Whoever validates a value would follow it without an end.
        """
        if node.pointer in self._followed:
            return
        path |= {node.pointer}
        for part in self._beside(node):
            if part.pointer in path or len(path) > MAX_DEPTH:
                reason = "it refers to itself without an end" if part.pointer in path else "the schema nests too deeply"
                self._refuse(node.pointer, SchemaError(node.pointer, reason))
                break
            self._follow(part, path)
        self._followed.add(node.pointer)

    def _beside(self, node: Subschema) -> list[Subschema]:
        """Return the schemas that speak of the same value as this one."""
        schema = node.schema
        parts = [Subschema(self._schemas[schema["$ref"]], schema["$ref"])] if "$ref" in schema else []
        parts += [node.child(word) for word in sorted(_BESIDE & _ONE) if word in schema]
        lists = [(word, range(len(schema[word]))) for word in sorted(_BESIDE & _MANY) if word in schema]
        parts += [node.child(word, number) for word, numbers in lists for number in numbers]
        return parts + [node.child("dependentSchemas", name) for name in schema.get("dependentSchemas", ())]

    def _refuse(self, pointer: str, problem: SchemaError) -> None:
        schema = self._schemas[pointer]
        for keyword in _BESIDE:
            schema.pop(keyword, None)
        schema.update(NOTHING)
        self._refused[pointer] = problem

    def _local(self, base: str, reference: str) -> str:
        """Return a reference as a pointer into this document where it names something in it, else as it is."""
        try:
            # A base that is a URN can be joined with nothing.
            url, fragment = urldefrag(base + reference if reference.startswith("#") else urljoin(base, reference))
        except ValueError:
            return reference
        if fragment and not fragment.startswith("/"):
            return self._names.get(f"{url}#{fragment}", reference)
        pointer = self._names.get(url)
        return reference if pointer is None else pointer + unquote(fragment)

    def _read(self, raw: object, base: str, pointer: str, depth: int) -> dict[str, Any]:
        if depth > MAX_DEPTH:
            raise SchemaError(f"{pointer[:60]}…", "the schema nests too deeply")
        source: Mapping[str, Any] = _modern(cast("Mapping[str, Any]", raw)) if isinstance(raw, Mapping) else {}
        schema: dict[str, Any] = dict(NOTHING) if raw is False else {}
        self._schemas[pointer] = schema
        base = self._note_names(source, base, pointer)
        for keyword, value in source.items():
            at = join_pointer(pointer, keyword)
            form = self._schemas_of(keyword, value, base, at, depth + 1)
            form = _value_of(keyword, value) if form is _ABSENT else form
            if form is not _ABSENT:
                schema[keyword] = form
        if "$ref" in schema:
            self._bases[pointer] = base
        return schema

    def _note_names(self, source: Mapping[str, Any], base: str, pointer: str) -> str:
        """Note under which names references may speak of a schema; return the base of those inside it."""
        identifier = source.get("$id")
        try:
            base = urldefrag(urljoin(base, identifier)).url if isinstance(identifier, str) else base
        except ValueError:
            return base
        if isinstance(identifier, str) or pointer == "#":
            self._names.setdefault(base, pointer)
        for anchor in (source.get("$anchor"), source.get("$dynamicAnchor")):
            if isinstance(anchor, str):
                self._names.setdefault(f"{base}#{anchor}", pointer)
        return base

    def _schemas_of(self, keyword: str, value: Any, base: str, pointer: str, depth: int) -> Any:
        """Return the schemas that a keyword holds; what is no keyword may hold some that references lead to."""
        if keyword in _MANY and isinstance(value, list) and value:
            parts = cast("list[Any]", value)
            return [self._read(part, base, join_pointer(pointer, number), depth) for number, part in enumerate(parts)]
        if keyword in _NAMED and isinstance(value, Mapping):
            named = cast("Mapping[str, Any]", value)
            return {name: self._read(part, base, join_pointer(pointer, name), depth) for name, part in named.items()}
        if keyword in _ONE:
            is_schema = isinstance(value, bool | Mapping)
        else:
            is_schema = isinstance(value, Mapping) and keyword not in _MANY | _NAMED | _FORMS.keys()
            is_schema = is_schema and not keyword.startswith("$")
        return self._read(cast("object", value), base, pointer, depth) if is_schema else _ABSENT


def _modern(source: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a schema of an older draft as this one's."""
    schema = dict(source)
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if schema.get(exclusive) is True and bound in schema:
            schema[exclusive] = schema.pop(bound)
    if isinstance(schema.get("items"), list):
        schema["prefixItems"] = schema.pop("items")
        if "additionalItems" in schema:
            schema["items"] = schema["additionalItems"]
    dependencies = schema.pop("dependencies", None)
    if isinstance(dependencies, Mapping):
        parts = cast("Mapping[str, Any]", dependencies)
        schema["dependentRequired"] = {name: part for name, part in parts.items() if isinstance(part, list)}
        schema["dependentSchemas"] = {name: part for name, part in parts.items() if not isinstance(part, list)}
    for older in ("$dynamicRef", "$recursiveRef"):
        if older in schema:
            schema.setdefault("$ref", schema.pop(older))
    if "$id" not in schema and "id" in schema:
        schema["$id"] = schema["id"]
    return schema


def _value_of(keyword: str, value: Any) -> Any:
    """Return the value of a keyword that holds no schema, in its form; `_ABSENT` where it has none."""
    form = _FORMS.get(keyword)
    return _ABSENT if form is None else form(value)


def _any(value: Any) -> Any:
    return value


def _text(value: Any) -> Any:
    return value if isinstance(value, str) else _ABSENT


def _flag(value: Any) -> Any:
    return value if isinstance(value, bool) else _ABSENT


def _number(value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole or (isinstance(value, float) and math.isfinite(value)) else _ABSENT


def _positive(value: Any) -> Any:
    number = _number(value)
    return number if number is not _ABSENT and number > 0 else _ABSENT


def _count(value: Any) -> Any:
    number = _number(value)
    return int(number) if number is not _ABSENT and number >= 0 and number == int(number) else _ABSENT


def _types(value: Any) -> Any:
    names = cast("list[Any]", value) if isinstance(value, list) else [value]
    types = [name for name in names if name in TYPES]
    return list(dict.fromkeys(types)) or _ABSENT


def _list(value: Any) -> Any:
    return cast("list[Any]", value) if isinstance(value, list) else _ABSENT


def _names(value: Any) -> Any:
    if not isinstance(value, list):
        return _ABSENT
    return list(dict.fromkeys(name for name in cast("list[Any]", value) if isinstance(name, str)))


def _names_by_name(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return _ABSENT
    lists = {name: _names(names) for name, names in cast("Mapping[str, Any]", value).items()}
    return {name: names for name, names in lists.items() if names is not _ABSENT}


def _discriminator(value: Any) -> Any:
    """Return what OpenAPI says of the field that tells a union apart: its name, and the reference of each value."""
    fields: Mapping[str, Any] = cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}
    mapping: Any = fields.get("mapping")
    if not isinstance(fields.get("propertyName"), str):
        return _ABSENT
    return {
        "propertyName": fields["propertyName"],
        "mapping": cast("Mapping[str, Any]", mapping) if isinstance(mapping, Mapping) else {},
    }


_ONE = frozenset(
    (
        *("not", "if", "then", "else", "items", "contains", "additionalProperties", "propertyNames"),
        *("unevaluatedItems", "unevaluatedProperties", "contentSchema"),
    )
)
_MANY = frozenset(("allOf", "anyOf", "oneOf", "prefixItems"))
_BESIDE = frozenset(("$ref", "not", "if", "then", "else", "allOf", "anyOf", "oneOf", "dependentSchemas"))
_NAMED = frozenset(("properties", "patternProperties", "dependentSchemas", "$defs", "definitions"))
_FORMS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("const", "default", "example", "examples"), _any),
    **dict.fromkeys(("pattern", "format", "contentEncoding", "contentMediaType", "$ref"), _text),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _number),
    **dict.fromkeys(
        (
            *("minLength", "maxLength", "minItems", "maxItems", "minContains", "maxContains"),
            *("minProperties", "maxProperties"),
        ),
        _count,
    ),
    "multipleOf": _positive,
    "uniqueItems": _flag,
    "type": _types,
    "enum": _list,
    "required": _names,
    "dependentRequired": _names_by_name,
    "discriminator": _discriminator,
}
