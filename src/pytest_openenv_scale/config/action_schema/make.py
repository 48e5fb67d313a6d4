"""The smallest action that a JSON schema admits, validated; else the part of the schema in the way, and a template.

What an author wrote comes first (`const`, `default`, `example`, `examples`, `enum`), then what is made: required fields
only, and those that can hold one value, which are the tags of unions. Nothing is drawn by chance.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice, product
from typing import TYPE_CHECKING, Any, cast

from pytest_openenv_scale.core.text import on_one_line, shorten

from .document import MAX_DEPTH, TYPES, Document, SchemaError, Subschema, join_pointer
from .scalars import MAX_LENGTH, is_multiple, numbers, plain_texts, texts_of_encoding, texts_of_format, texts_of_pattern

if TYPE_CHECKING:
    from jsonschema import ValidationError

MAX_ITEMS = 100_000
"""Items of the longest array that is made, and fields of the largest object."""

_TRIES = 200
"""Values in a row that a schema may reject before the next way to make one is tried."""

_WORK = 50_000
"""Schemas and values that are tried in all, for schemas whose alternatives multiply."""

ELLIPSIS = "…"
"""Stands in a template for what has to be filled in."""

_TEMPLATE_DEPTH = 4
_FEW = 6
_NO_LIMITS = frozenset(
    ("$ref", "allOf", "anyOf", "discriminator", "$defs", "definitions", "default", "example", "examples")
)
"""Keywords that alone keep no value from being valid: what they lead to does."""

_ABSENT: Any = object()
_OBJECT = Subschema({"type": ["object"]}, "#/type")
_HINTS: Mapping[str, tuple[str, ...]] = {
    "object": ("properties", "required", "patternProperties", "additionalProperties", "propertyNames", "minProperties"),
    "array": ("items", "prefixItems", "contains", "minItems", "maxItems", "uniqueItems"),
    "string": ("pattern", "format", "minLength", "maxLength", "contentEncoding", "contentMediaType"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}


class NoActionError(SchemaError):
    """No action can be made: `pointer` and `reason` say why, `template` is an action to be filled in."""

    def __init__(self, problem: SchemaError, template: object) -> None:
        super().__init__(problem.pointer, problem.reason)
        self.template = template


@dataclass(frozen=True, slots=True)
class MadeAction:
    """An action that its schema admits, and the names of all fields that an action of its kind may have."""

    action: Mapping[str, Any]
    fields: frozenset[str]


def make_action(schema: Mapping[str, Any]) -> MadeAction:
    """Return the smallest action that a JSON schema admits.

    Raises:
        NoActionError: none can be made, or the schema admits no object.
    """
    with warnings.catch_warnings():
        # Foreign patterns may be written in a way that Python warns of.
        warnings.simplefilter("ignore")
        try:
            maker = _Maker(Document(schema))
        except SchemaError as problem:
            raise NoActionError(problem, ELLIPSIS) from None
        try:
            return maker.action()
        except SchemaError as problem:
            raise NoActionError(problem, maker.template()) from None


class _Maker:
    """Makes values of one document; several schemas (`nodes`) at once are those that one value has to satisfy."""

    def __init__(self, document: Document) -> None:
        # Slow to import, and needed only where an action is made.
        from jsonschema import Draft202012Validator
        from jsonschema.validators import extend

        self._document = document
        # Divided as floats, 0.3 is no multiple of 0.05.
        self._validator = extend(Draft202012Validator, {"multipleOf": _multiple_of})(document.root.schema)
        self._root = (document.root, _OBJECT)
        self._work = 0

    def action(self) -> MadeAction:
        """Return the action to send."""
        action = next(self._values(self._root, frozenset()))
        if not _is_json(action):
            raise SchemaError("#", "its names are no Unicode text")
        kind = next(flat for flat in self._alternatives(self._root, []) if self._problem(flat, action) is None)
        return MadeAction(action, frozenset(name for node in kind for name in node.schema.get("properties", ())))

    def template(self) -> Any:
        """Return what an action looks like, with "…" for what cannot be made."""
        self._work = min(self._work, _WORK // 2)
        return self._template(self._root, 0)

    def _template(self, nodes: Sequence[Subschema], depth: int) -> Any:
        flat = next(self._alternatives(nodes, []), ())
        names = [*self._tags(flat), *_required(flat)] if depth < _TEMPLATE_DEPTH else []
        try:
            if names:
                return {name: self._template(_field(flat, name), depth + 1) for name in dict.fromkeys(names)}
            return next(self._values(nodes, frozenset()))
        except SchemaError:
            return ELLIPSIS

    def _values(self, nodes: Sequence[Subschema], path: frozenset[frozenset[str]]) -> Iterator[Any]:
        """Yield values that satisfy all of `nodes`, the one to send first; `path` is what they are part of.

        Raises:
            SchemaError: there is none, or none is made here.
        """
        problems: list[SchemaError] = []
        rejections: list[SchemaError] = []
        made = False
        for flat in self._alternatives(nodes, problems):
            pointers = frozenset(node.pointer for node in flat if node.schema.keys() - _NO_LIMITS)
            nothing = next((node for node in flat if node.schema.get("not") == {}), None)
            if nothing is not None:
                problems.append(SchemaError(nothing.pointer, "it admits nothing"))
                continue
            if len(path) > MAX_DEPTH or any(outer and outer <= pointers for outer in path):
                problems.append(SchemaError(_pointer(flat), "it contains itself without an end"))
                continue
            rejected = 0
            for value in self._candidates(flat, path | {pointers}, problems):
                rejection = self._problem(nodes, value)
                if rejection is None:
                    made, rejected = True, 0
                    yield value
                    continue
                rejections.append(rejection)
                rejected += 1
                if rejected == _TRIES:
                    break
        if not made:
            raise next(chain(problems, rejections), SchemaError(_pointer(nodes), "it admits nothing"))

    def _problem(self, nodes: Sequence[Subschema], value: object) -> SchemaError | None:
        """Return what keeps a value from satisfying all of `nodes`; None where nothing does.

        Raises:
            SchemaError: no value can be validated.
        """
        self._work += 1
        for node in nodes:
            try:
                error = next(self._validator.evolve(schema=node.schema).iter_errors(value), None)
            except (KeyboardInterrupt, SystemExit, GeneratorExit):
                raise
            except BaseException as failure:
                # Whatever foreign JSON does to a validator: a pattern that is none, nesting that ends the stack, where
                # what jsonschema is built on panics, which is no Exception.
                if not isinstance(failure, Exception) or isinstance(failure, RecursionError):
                    raise SchemaError(node.pointer, "the schema nests too deeply") from None
                return SchemaError(node.pointer, f"it cannot be read ({_short(str(failure))})")
            if error is not None:
                return _rejection(node, error)
        return None

    def _alternatives(self, nodes: Sequence[Subschema], problems: list[SchemaError]) -> Iterator[tuple[Subschema, ...]]:
        """Yield for each way to choose among alternatives all schemas that hold then.

        What is wrong with a way (a reference that leads nowhere, too many ways) is added to `problems`.
        """
        try:
            yield from self._choose(nodes, (), {}, problems)
        except SchemaError as problem:
            problems.append(problem)

    def _choose(
        self,
        nodes: Sequence[Subschema],
        choices: tuple[list[tuple[Subschema, ...]], ...],
        subschemas: Mapping[str, Subschema],
        problems: list[SchemaError],
    ) -> Iterator[tuple[Subschema, ...]]:
        self._work += 1 + len(subschemas)
        if self._work > _WORK:
            raise SchemaError(_pointer(nodes), "its alternatives are too many")
        waiting, subschemas = list(nodes), dict(subschemas)
        try:
            while waiting:
                node = waiting.pop(0)
                if node.pointer not in subschemas:
                    subschemas[node.pointer] = node
                    waiting += self._implied(node)
                    choices = (*choices, *_choices(node))
        except SchemaError as problem:
            problems.append(problem)
            return
        if not choices:
            yield tuple(subschemas.values())
            return
        for choice in choices[0]:
            yield from self._choose(choice, choices[1:], subschemas, problems)

    def _implied(self, node: Subschema) -> list[Subschema]:
        """Return the schemas that hold where this one does."""
        target = self._document.resolve(node)
        parts = [node.child("allOf", number) for number in range(len(node.schema.get("allOf", ())))]
        return parts if target is None else [target, *parts]

    def _candidates(
        self, nodes: tuple[Subschema, ...], path: frozenset[frozenset[str]], problems: list[SchemaError]
    ) -> Iterator[Any]:
        """Yield values that may satisfy schemas without alternatives; why others are not made goes to `problems`."""
        yield from filter(_is_json, _written(nodes))
        if _holder(nodes, "const") or _holder(nodes, "enum"):
            return
        makers: Mapping[str, Callable[[], Iterator[Any]]] = {
            "object": lambda: self._objects(nodes, path),
            "string": lambda: self._strings(nodes, path),
            "integer": lambda: numbers(nodes, whole=True),
            "number": lambda: numbers(nodes, whole=False),
            "boolean": lambda: iter((False, True)),
            "array": lambda: self._arrays(nodes, path),
            "null": lambda: iter((None,)),
        }
        try:
            kinds = _kinds(nodes)
        except SchemaError as problem:
            problems.append(problem)
            return
        for kind in kinds:
            try:
                yield from makers[kind]()
            except SchemaError as problem:
                problems.append(problem)

    def _objects(self, nodes: tuple[Subschema, ...], path: frozenset[frozenset[str]]) -> Iterator[dict[str, Any]]:
        required = _required(nodes)
        with_tags = list(dict.fromkeys([*self._tags(nodes), *required]))
        try:
            yield from self._objects_of(with_tags, nodes, path)
        except SchemaError:
            if len(with_tags) == len(required):
                raise
        if len(with_tags) > len(required):
            yield from self._objects_of(required, nodes, path)

    def _objects_of(
        self, names: list[str], nodes: tuple[Subschema, ...], path: frozenset[frozenset[str]]
    ) -> Iterator[dict[str, Any]]:
        """Yield objects with these fields at least; those after the first differ from it in one field, then in more."""
        streams = {name: self._values(_field(nodes, name), path) for name in self._enough(nodes, names, path)}
        first = {name: next(stream) for name, stream in streams.items()}
        yield first
        for name, stream in streams.items():
            for value in stream:
                yield {**first, name: value}
        for values in self._combined([_field(nodes, name) for name in streams], path):
            yield dict(zip(streams, values, strict=True))

    def _combined(
        self, parts: Sequence[Sequence[Subschema]], path: frozenset[frozenset[str]]
    ) -> Iterator[tuple[Any, ...]]:
        """Yield every combination of the first few values of each part."""
        if len(parts) > _FEW:
            return iter(())
        return product(*(islice(self._values(part, path), _FEW) for part in parts))

    def _tags(self, nodes: Sequence[Subschema]) -> list[str]:
        """Return the fields that can hold one value only: pydantic leaves the tags of unions out of `required`."""
        return [name for node in nodes for name in node.schema.get("properties", ()) if self._is_tag(node, name)]

    def _is_tag(self, node: Subschema, name: str) -> bool:
        field = node.child("properties", name)
        fields = next(self._alternatives((field,), []), ())
        return any("const" in part.schema or len(part.schema.get("enum", ())) == 1 for part in fields)

    def _enough(self, nodes: tuple[Subschema, ...], names: list[str], path: frozenset[frozenset[str]]) -> list[str]:
        """Return the names and as many more as are needed.

        Raises:
            SchemaError: as many cannot be made.
        """
        names = list(names)
        for name in names:
            dependent = [node.schema.get("dependentRequired", {}).get(name, []) for node in nodes]
            names += dict.fromkeys(other for others in dependent for other in others if other not in names)
        least, holder = _most(nodes, "minProperties"), _holder(nodes, "minProperties")
        if holder is None or len(names) >= least:
            return names
        if least <= MAX_ITEMS:
            for name in islice(self._further_names(nodes, path), least + _TRIES):
                if name not in names and self._can_be_made(_field(nodes, name), path):
                    names.append(name)
                if len(names) == least:
                    return names
        raise SchemaError(f"{holder.pointer}/minProperties", f"it asks for {least:,} fields, more than can be made")

    def _further_names(self, nodes: tuple[Subschema, ...], path: frozenset[frozenset[str]]) -> Iterator[str]:
        """Yield names that an object may have beside those it has to have."""
        for node in nodes:
            yield from node.schema.get("properties", ())
        naming = [node.child("propertyNames") for node in nodes if "propertyNames" in node.schema]
        if naming:
            yield from self._values((*naming, Subschema({"type": ["string"]}, "")), path)
        for node in nodes:
            for pattern in node.schema.get("patternProperties", ()):
                yield from islice(_pattern_texts(node, "patternProperties", pattern, 0, None), MAX_ITEMS)
        # Digits are keys of most mappings: also of those by whole number, which a schema does not tell apart.
        yield from map(str, count(1))

    def _can_be_made(self, nodes: Sequence[Subschema], path: frozenset[frozenset[str]]) -> bool:
        try:
            next(self._values(nodes, path))
        except SchemaError:
            return False
        return True

    def _arrays(self, nodes: tuple[Subschema, ...], path: frozenset[frozenset[str]]) -> Iterator[list[Any]]:
        containing = [node.schema.get("minContains", 1) for node in nodes if "contains" in node.schema]
        least = max(_most(nodes, "minItems"), *containing, 0)
        if least > MAX_ITEMS:
            pointer = _pointer([node for node in nodes if node.schema.get("minItems") == least] or nodes)
            raise SchemaError(f"{pointer}/minItems", f"it asks for {least:,} items; at most {MAX_ITEMS:,} are made")
        most = _least(nodes, "maxItems", MAX_ITEMS)
        for length in range(least, min(most, least + _TRIES) + 1):
            yield from self._arrays_of(length, nodes, path)

    def _arrays_of(
        self, length: int, nodes: tuple[Subschema, ...], path: frozenset[frozenset[str]]
    ) -> Iterator[list[Any]]:
        """Yield arrays of a length; those after the first differ from it in the last item, then in more."""
        distinct = next((node for node in nodes if node.schema.get("uniqueItems")), None)
        streams: dict[tuple[str, ...], Iterator[Any]] = {}
        firsts: dict[tuple[str, ...], Any] = {}
        array: list[Any] = []
        identities: set[str] = set()
        candidates: Iterator[Any] = iter(())
        for number in range(length):
            parts = _item(nodes, number)
            pointers = tuple(part.pointer for part in parts)
            candidates = streams.setdefault(pointers, self._values(parts, path))
            if distinct is None:
                array.append(firsts[pointers] if pointers in firsts else firsts.setdefault(pointers, next(candidates)))
                continue
            value = next((value for value in candidates if _identity(value) not in identities), _ABSENT)
            if value is _ABSENT:
                reason = f"fewer than {length:,} different items can be made"
                raise SchemaError(f"{distinct.pointer}/uniqueItems", reason)
            identities.add(_identity(value))
            array.append(value)
        yield array
        yield from (
            [*array[:-1], value] for value in candidates if distinct is None or _identity(value) not in identities
        )
        yield from map(list, self._combined([_item(nodes, number) for number in range(length)], path))

    def _strings(self, nodes: tuple[Subschema, ...], path: frozenset[frozenset[str]]) -> Iterator[str]:
        least, most = _most(nodes, "minLength"), _least(nodes, "maxLength", MAX_LENGTH)
        if least > MAX_LENGTH:
            pointer = _pointer([node for node in nodes if node.schema.get("minLength") == least])
            raise SchemaError(f"{pointer}/minLength", f"it asks for more than {MAX_LENGTH:,} characters")
        for node in nodes:
            if "contentMediaType" in node.schema or "contentEncoding" in node.schema:
                yield from islice(self._contents(node, path), _TRIES)
        formats = [texts_of_format(node.schema["format"]) for node in nodes if "format" in node.schema]
        patterned = [node for node in nodes if "pattern" in node.schema]
        for texts in filter(None, formats):
            yield from islice(texts, _TRIES // 2) if patterned else texts
        for node in patterned:
            yield from _pattern_texts(node, "pattern", node.schema["pattern"], least, most)
        yield from plain_texts(least, most)

    def _contents(self, node: Subschema, path: frozenset[frozenset[str]]) -> Iterator[str]:
        """Yield texts that hold content of a media type, in the encoding that the schema names."""
        encoding, media = node.schema.get("contentEncoding", ""), node.schema.get("contentMediaType", "")
        schemas = (node.child("contentSchema"),) if "contentSchema" in node.schema else ()
        is_json = media.partition(";")[0].strip().endswith(("/json", "+json"))
        contents = map(json.dumps, self._values(schemas, path)) if is_json else plain_texts(0, None)
        return (texts_of_encoding(encoding, content) for content in contents)


def _pointer(nodes: Sequence[Subschema]) -> str:
    return nodes[0].pointer if nodes else "#"


def _holder(nodes: Sequence[Subschema], keyword: str) -> Subschema | None:
    """Return the first of the schemas that has a keyword."""
    return next((node for node in nodes if keyword in node.schema), None)


def _most(nodes: Sequence[Subschema], keyword: str) -> int:
    return max((node.schema[keyword] for node in nodes if keyword in node.schema), default=0)


def _least(nodes: Sequence[Subschema], keyword: str, default: int) -> int:
    return min((node.schema[keyword] for node in nodes if keyword in node.schema), default=default)


def _choices(node: Subschema) -> list[list[tuple[Subschema, ...]]]:
    """Return what a schema leaves open: for each choice the alternatives, as the schemas that hold with each."""
    schema = node.schema
    choices: list[list[tuple[Subschema, ...]]] = [
        [(node.child(keyword, number), *_tagged(node, keyword, number)) for number in range(len(schema[keyword]))]
        for keyword in ("anyOf", "oneOf")
        if keyword in schema
    ]
    if "if" in schema:
        choices.append([(node.child(word),) if word in schema else () for word in ("else", "then")])
    return choices + [[(), (node.child("dependentSchemas", name),)] for name in schema.get("dependentSchemas", ())]


def _tagged(node: Subschema, keyword: str, number: int) -> tuple[Subschema, ...]:
    """Return what OpenAPI's `discriminator` asks of an alternative: the field that tells which one it is."""
    discriminator = node.schema.get("discriminator")
    if discriminator is None:
        return ()
    name, reference = discriminator["propertyName"], node.schema[keyword][number].get("$ref")
    tags = [tag for tag, target in discriminator["mapping"].items() if target == reference]
    fields: dict[str, Any] = {"required": [name], "properties": {name: {"enum": tags} if tags else {}}}
    return (Subschema(fields, f"{node.pointer}/discriminator"),)


def _written(nodes: Sequence[Subschema]) -> Iterator[Any]:
    """Yield the values that the author of the schemas wrote into them."""
    for keyword in ("const", "default", "example"):
        yield from (node.schema[keyword] for node in nodes if keyword in node.schema)
    for node in nodes:
        yield from _examples(node.schema.get("examples"))
    for node in nodes:
        yield from node.schema.get("enum", ())


def _examples(examples: Any) -> Iterator[Any]:
    """Yield examples: of a list, as JSON Schema has them; of OpenAPI's mapping of names; or one alone."""
    if isinstance(examples, Mapping):
        for example in cast("Mapping[str, Any]", examples).values():
            yield example["value"] if isinstance(example, Mapping) and "value" in example else example
    elif isinstance(examples, list):
        for example in cast("list[Any]", examples):
            yield example
            if isinstance(example, Mapping) and "value" in example:
                yield example["value"]
    elif examples is not None:
        yield examples


def _kinds(nodes: Sequence[Subschema]) -> list[str]:
    """Return the types that all schemas admit, the likeliest first.

    Raises:
        SchemaError: they admit none in common.
    """
    typed = [node for node in nodes if "type" in node.schema]
    if not typed:
        hinted = [kind for kind, words in _HINTS.items() if any(_holder(nodes, word) for word in words)]
        return list(dict.fromkeys([*hinted, *TYPES]))
    kinds: list[str] = typed[0].schema["type"]
    for node in typed[1:]:
        kinds = [both for kind in kinds if (both := _common(kind, node.schema["type"]))]
        if not kinds:
            reason = "it is not an object" if node is _OBJECT else "it has no type in common with what holds beside it"
            raise SchemaError(f"{typed[0].pointer}/type", reason)
    return kinds


def _common(kind: str, kinds: list[str]) -> str | None:
    """Return the type that is a type and one of several: whole numbers are numbers."""
    if kind in kinds:
        return kind
    return "integer" if {kind, *kinds} >= {"integer", "number"} and kind in ("integer", "number") else None


def _required(nodes: Sequence[Subschema]) -> list[str]:
    return list(dict.fromkeys(name for node in nodes for name in node.schema.get("required", ())))


def _field(nodes: Sequence[Subschema], name: str) -> list[Subschema]:
    """Return the schemas of a field of an object.

    Raises:
        SchemaError: a pattern of names is none.
    """
    fields: list[Subschema] = []
    for node in nodes:
        named = [node.child("properties", name)] if name in node.schema.get("properties", ()) else []
        patterns = [text for text in node.schema.get("patternProperties", ()) if _matches(node, text, name)]
        named += [node.child("patternProperties", pattern) for pattern in patterns]
        if not named and "additionalProperties" in node.schema:
            named.append(node.child("additionalProperties"))
        fields += named
    return fields


def _matches(node: Subschema, pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except (re.error, OverflowError, RecursionError) as error:
        at = node.child("patternProperties", pattern).pointer
        raise SchemaError(at, f"Python has no such pattern ({error})") from None


def _pattern_texts(node: Subschema, keyword: str, pattern: str, least: int, most: int | None) -> Iterator[str]:
    """Yield texts that match a pattern.

    Raises:
        SchemaError: none can be made of it.
    """
    at = node.child(keyword, pattern).pointer if keyword == "patternProperties" else f"{node.pointer}/{keyword}"
    try:
        texts = texts_of_pattern(pattern, least, most)
        yield from (text for text in texts if re.search(pattern, text))
    except ValueError as error:
        raise SchemaError(at, f"no text is made of {_short(pattern)!r} ({error})") from None


def _item(nodes: Sequence[Subschema], number: int) -> list[Subschema]:
    """Return the schemas of one item of an array."""
    items: list[Subschema] = []
    for node in nodes:
        if number < len(node.schema.get("prefixItems", ())):
            items.append(node.child("prefixItems", number))
        elif "items" in node.schema:
            items.append(node.child("items"))
        if "contains" in node.schema and number < node.schema.get("minContains", 1):
            items.append(node.child("contains"))
    return items


def _identity(value: Any) -> str:
    """Return a text that is the same for values that are the same in JSON."""
    whole = isinstance(value, float) and value.is_integer()
    return json.dumps(int(value) if whole else value, sort_keys=True)


def _short(text: str) -> str:
    return shorten(on_one_line(text), 80)


def _is_json(value: object) -> bool:
    """Say whether a value can be sent: JSON has no NaN, UTF-8 no half of a pair of surrogates."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return False
    return True


def _multiple_of(_validator: object, step: float, value: Any, _schema: object) -> Iterator[ValidationError]:
    from jsonschema import ValidationError

    if isinstance(value, int | float) and not isinstance(value, bool) and not is_multiple(value, step):
        yield ValidationError(f"{value!r} is not a multiple of {step!r}")


def _rejection(node: Subschema, error: ValidationError) -> SchemaError:
    path: list[str | int] = []
    for part in error.absolute_schema_path:
        if part == "$ref":
            break
        path.append(part)
    return SchemaError(join_pointer(node.pointer, *path), _short(error.message))
