"""The action that is made of a JSON schema: the smallest it admits, validated, or the part of the schema in the way."""

from __future__ import annotations

import contextlib
import json

import jsonschema
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from foreign_schemas import FOREIGN_SCHEMAS
from pytest_openenv_scale.config.action_schema.document import TYPES
from pytest_openenv_scale.config.action_schema.make import MAX_ITEMS, NoActionError, make_action


def value_for(schema):
    """Return what is made for a field of this schema."""
    return make_action({"type": "object", "required": ["field"], "properties": {"field": schema}}).action["field"]


def in_the_way(schema):
    """Return the pointer to what keeps an action from being made, and why."""
    with pytest.raises(NoActionError) as caught:
        make_action(schema)
    return caught.value.pointer, caught.value.reason


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({}, {}),
        (True, {}),
        ({"const": 3}, 3),
        ({"const": None}, None),
        ({"enum": ["up", "down"]}, "up"),
        ({"type": "string"}, "hello"),
        ({"type": "string", "minLength": 8}, "helloxxx"),
        ({"type": "string", "maxLength": 2}, "xx"),
        ({"maxLength": 2}, "xx"),
        ({"type": "boolean"}, False),
        ({"type": "null"}, None),
        ({"type": ["string", "null"]}, "hello"),
        ({"type": "integer"}, 0),
        ({"type": "integer", "minimum": 3}, 3),
        ({"type": "integer", "exclusiveMinimum": 3}, 4),
        ({"type": "integer", "minimum": 3, "exclusiveMinimum": True}, 4),
        ({"type": "integer", "maximum": -2}, -2),
        ({"type": "integer", "exclusiveMaximum": -2}, -3),
        ({"type": "integer", "minimum": 1.5}, 2),
        ({"type": "integer", "multipleOf": 5, "minimum": 7}, 10),
        ({"type": "integer", "multipleOf": 5, "maximum": -7}, -10),
        ({"type": "integer", "allOf": [{"multipleOf": 4}, {"multipleOf": 6}], "minimum": 1}, 12),
        ({"type": "number", "multipleOf": 0.1, "exclusiveMinimum": 0.3, "maximum": 1}, 0.4),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.5),
        ({"type": "number", "multipleOf": 0.05, "minimum": 0.3, "maximum": 0.35}, 0.3),
        ({"type": "number", "minimum": 0.37, "maximum": 0.38}, 0.37),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1e-30}, 5e-31),
        ({"type": "array"}, []),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [0, 0]),
        ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 3}, [0, "hello", {}]),
        ({"type": "array", "items": [{"type": "integer"}], "additionalItems": {"const": 7}, "minItems": 2}, [0, 7]),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 3, "uniqueItems": True}, [0, 1, 2]),
        ({"type": "array", "items": {"enum": [1, 1.0, "a"]}, "minItems": 2, "uniqueItems": True}, [1, "a"]),
        ({"type": "array", "contains": {"const": 5}, "items": {"type": "integer"}, "minItems": 2}, [5, 0]),
        ({"type": "object", "minProperties": 1}, {"1": {}}),
        (
            {"type": "object", "minProperties": 2, "properties": {"a": False, "b": {"type": "null"}}},
            {"b": None, "1": {}},
        ),
        ({"minProperties": 1, "propertyNames": {"enum": ["x"]}, "additionalProperties": {"type": "integer"}}, {"x": 0}),
        ({"minProperties": 1, "patternProperties": {"^k\\d$": {"const": 1}}, "additionalProperties": False}, {"k0": 1}),
        ({"required": ["a"], "dependentRequired": {"a": ["b"]}}, {"a": {}, "b": {}}),
        ({"required": ["a"], "dependencies": {"a": {"required": ["c"]}}}, {"a": {}, "c": {}}),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 0),
        ({"anyOf": [{"$ref": "#/nowhere"}, {"type": "null"}]}, None),
        ({"oneOf": [{"type": "number"}, {"type": "integer", "minimum": 0}]}, 0.5),
        ({"type": "string", "not": {"const": "hello"}}, "hello1"),
        ({"allOf": [{"type": "integer", "minimum": 2}]}, 2),
        ({"allOf": [{"type": "number"}, {"type": "integer", "minimum": 2}]}, 2),
        ({"allOf": [{"required": ["a"], "type": "object"}, {"properties": {"a": {"const": 1}}}]}, {"a": 1}),
        ({"properties": {"a": {"const": 1}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"a": 1}),
        ({"required": ["a"], "if": {"properties": {"a": {"const": 1}}}, "then": {"required": ["b"]}}, {"a": {}}),
        (
            {"required": ["a"], "if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": False},
            {"a": {}, "b": {}},
        ),
        ({"type": "string", "pattern": "^[a-h][1-8]$"}, "a1"),
        ({"type": "string", "pattern": "[a-z]+", "minLength": 3}, "aaa"),
        ({"type": "string", "pattern": r"^(?=.*\d)(?=.*[a-z]).{8,}$"}, "0aaaaaaaaa"),
        ({"type": "string", "pattern": r"^(ab|c){2}\w-\1$"}, "ababa-ab"),
        ({"type": "string", "contentMediaType": "application/json", "contentSchema": {"const": [1]}}, "[1]"),
        ({"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png"}, "aGVsbG8="),
        ({"type": "string", "format": "unheard of"}, "hello"),
    ],
)
def test_a_field_gets_the_smallest_value_its_schema_admits(schema, value):
    actual = value_for(schema)
    assert actual == value
    assert type(actual) is type(value)


@pytest.mark.parametrize(
    "schema",
    [
        {"default": "mine"},
        {"example": "mine"},
        {"examples": ["mine", "other"]},
        {"examples": {"the first": {"summary": "…", "value": "mine"}, "second": {"value": "other"}}},
        {"examples": {"the first": "mine"}},
        {"examples": [{"summary": "…", "value": "mine"}]},
        {"examples": "mine"},
        {"default": None, "examples": [3, "mine"]},
        {"$ref": "#/$defs/Text", "example": "mine"},
    ],
)
def test_what_the_author_wrote_comes_first_where_it_is_valid(schema):
    action_schema = {
        "required": ["field"],
        "properties": {"field": {"type": "string", **schema}},
        "$defs": {"Text": {}},
    }
    assert make_action(action_schema).action == {"field": "mine"}


def test_the_example_of_an_action_is_the_action():
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "examples": [{"n": "no"}, {"n": 3}]}
    assert make_action(schema).action == {"n": 3}


@pytest.mark.parametrize("name", ["uuid", "date-time", "date", "time", "duration", "uri", "ipv4", "byte", "email"])
def test_many_different_texts_of_a_format_can_be_made(name):
    texts = value_for(
        {"type": "array", "minItems": 300, "uniqueItems": True, "items": {"type": "string", "format": name}}
    )
    assert len(set(texts)) == 300


def test_items_that_have_to_differ_may_be_arrays_objects_or_short_texts():
    pair = {"type": "array", "prefixItems": [{"type": "boolean"}, {"type": "boolean"}], "minItems": 2, "maxItems": 2}
    fields = {"a": {"type": "boolean"}, "b": {"type": "boolean"}}
    record = {"type": "object", "required": ["a", "b"], "properties": fields, "additionalProperties": False}
    for items, number in ((pair, 4), (record, 4), ({"type": "string", "minLength": 1, "maxLength": 1}, 30)):
        different = value_for({"type": "array", "uniqueItems": True, "minItems": number, "items": items})
        assert len({json.dumps(item) for item in different}) == number


def test_an_array_may_be_long():
    assert value_for({"type": "array", "items": {"type": "number"}, "minItems": 5000}) == [0.0] * 5000


# Unions


def test_the_tag_of_a_union_is_part_of_the_action_though_it_is_not_required():
    def variant(tag, **properties):
        fields = {"tool": {"const": tag, "default": tag}, **properties}
        return {"type": "object", "properties": fields, "required": list(properties)}

    schema = {
        "$defs": {"Query": variant("query", service={"type": "string"}), "List": variant("list")},
        "discriminator": {"propertyName": "tool", "mapping": {"query": "#/$defs/Query", "list": "#/$defs/List"}},
        "oneOf": [{"$ref": "#/$defs/Query"}, {"$ref": "#/$defs/List"}],
    }
    assert make_action(schema).action == {"tool": "query", "service": "hello"}


def test_a_tag_that_only_the_discriminator_names_is_part_of_the_action():
    schema = {
        "components": {"schemas": {"Cat": {"type": "object"}, "Dog": {"type": "object"}}},
        "discriminator": {"propertyName": "pet", "mapping": {"dog": "#/components/schemas/Dog"}},
        "oneOf": [{"$ref": "#/components/schemas/Dog"}],
    }
    assert make_action(schema).action == {"pet": "dog"}


def test_the_fields_of_an_action_are_those_of_its_kind():
    schema = {"anyOf": [{"$ref": "#/$defs/A"}, {"properties": {"b": {}}}], "$defs": {"A": {"properties": {"a": {}}}}}
    assert make_action(schema).fields == {"a"}


# References


@pytest.mark.parametrize(
    ("reference", "definitions"),
    [
        ("#/$defs/a~1b~0c", {"a/b~c": {"const": 1}}),
        ("#/$defs/a%20b", {"a b": {"const": 1}}),
        ("#one", {"x": {"$anchor": "one", "const": 1}}),
        ("item", {"x": {"$id": "item", "const": 1}}),
        ("http://host/item#one", {"x": {"$id": "http://host/item", "$defs": {"y": {"$anchor": "one", "const": 1}}}}),
        ("http://host/item#/$defs/y", {"x": {"$id": "http://host/item", "$defs": {"y": {"const": 1}}}}),
    ],
)
@pytest.mark.parametrize("root", [{}, {"$id": "http://host/root"}, {"$id": "urn:x:y"}])
def test_a_reference_leads_to_what_it_names(reference, definitions, root):
    if root and reference == "item":
        reference = definitions["x"]["$id"] = "http://host/item"
    schema = {**root, "required": ["a"], "properties": {"a": {"$ref": reference}}, "$defs": definitions}
    assert make_action(schema).action == {"a": 1}


def test_a_schema_may_refer_to_itself_where_that_has_an_end():
    node = {"type": "object", "required": ["next"], "properties": {"next": {"anyOf": [{"$ref": "#/$defs/Node"}, {}]}}}
    node["properties"]["next"]["anyOf"][1] = {"type": "array", "items": {"$ref": "#/$defs/Node"}}
    schema = {"required": ["a"], "properties": {"a": {"$ref": "#/$defs/Node"}}, "$defs": {"Node": node}}
    assert make_action(schema).action == {"a": {"next": []}}


def test_an_alternative_that_refers_to_itself_is_no_alternative():
    assert make_action({"anyOf": [{"$ref": "#"}, {"required": ["a"]}]}).action == {"a": {}}


def test_nothing_is_fetched(monkeypatch):
    def fail(*_):
        raise AssertionError("fetched")

    monkeypatch.setattr("urllib.request.urlopen", fail)
    assert in_the_way({"$ref": "http://127.0.0.1:9/schema"})[0] == "#/$ref"
    assert in_the_way({"required": ["a"], "allOf": [{"$ref": "http://127.0.0.1:9/schema"}]})[0] == "#/allOf/0/$ref"


# In the way


def field(schema):
    return {"type": "object", "required": ["field"], "properties": {"field": schema}}


@pytest.mark.parametrize(
    ("schema", "pointer", "reason"),
    [
        ({"type": "string"}, "#/type", "not an object"),
        ({"$ref": "#/$defs/Missing"}, "#/$ref", "leads nowhere"),
        ({"$ref": "#/enum/0", "enum": [{"type": 5}]}, "#/$ref", "leads nowhere"),
        ({"$ref": "#"}, "#", "refers to itself"),
        (
            {"$ref": "#/$defs/0", "$defs": {str(n): {"$ref": f"#/$defs/{n + 1}"} for n in range(999)}},
            "#/$defs/",
            "nests too deeply",
        ),
        (field({"$ref": "#"}), "#", "contains itself"),
        (field(False), "#/properties/field", "admits nothing"),
        (field({"enum": []}), "#/properties/field", "admits nothing"),
        (field({"type": "string", "pattern": "("}), "#/properties/field/pattern", "no text is made of '('"),
        (field({"type": "string", "pattern": r"\p{L}"}), "#/properties/field/pattern", "bad escape"),
        (field({"type": "string", "pattern": "a{9999999}"}), "#/properties/field/pattern", "characters"),
        (field({"pattern": "((a{999}){999}){999}", "type": "string"}), "#/properties/field/pattern", "characters"),
        (field({"type": "string", "pattern": "^b$", "maxLength": 0}), "#/properties/field/", ""),
        (field({"type": "string", "minLength": 10**9}), "#/properties/field/minLength", "more than 1,000,000"),
        (field({"type": "array", "minItems": 10**9}), "#/properties/field/minItems", f"at most {MAX_ITEMS:,}"),
        (
            field({"items": {"type": "boolean"}, "minItems": 3, "uniqueItems": True, "type": "array"}),
            "#/properties/field/uniqueItems",
            "fewer than 3 different items",
        ),
        (
            field({"type": "object", "minProperties": 3, "additionalProperties": False}),
            "#/properties/field/minProperties",
            "asks for 3 fields",
        ),
        (
            field({"type": "object", "minProperties": 10**9}),
            "#/properties/field/minProperties",
            "more than can be made",
        ),
        (field({"type": "integer", "minimum": 3, "maximum": 2}), "#/properties/field", "admits nothing"),
        (field({"type": "string", "allOf": [{"type": "integer"}]}), "#/properties/field/type", "no type in common"),
        (field({"type": "string", "not": {"type": "string"}}), "#/properties/field/not", ""),
        ({"patternProperties": {"(": {}}, "required": ["a"]}, "#/patternProperties/(", "no such pattern"),
        ({"required": ["\ud800"]}, "#", "Unicode"),
        ({"allOf": [{"anyOf": [{"minProperties": n + 1}, False]} for n in range(40)], "maxProperties": 0}, "#", ""),
    ],
)
def test_the_part_of_the_schema_in_the_way_is_named(schema, pointer, reason):
    at, why = in_the_way(schema)
    assert at.startswith(pointer)
    assert reason in why


def test_a_schema_that_nests_too_deeply_is_refused():
    deep = {"type": "integer"}
    for _ in range(3000):
        deep = {"properties": {"a": deep}, "required": ["a"]}
    assert "nests too deeply" in in_the_way(deep)[1]


def test_the_template_holds_what_can_be_made_and_gaps_for_the_rest():
    schema = {
        "required": ["n", "inner", "text"],
        "properties": {
            "kind": {"const": "move"},
            "n": {"type": "integer"},
            "text": {"type": "string", "pattern": r"\p{L}"},
            "inner": {"type": "object", "required": ["x"], "properties": {"x": False}},
        },
    }
    with pytest.raises(NoActionError) as caught:
        make_action(schema)
    assert caught.value.template == {"kind": "move", "n": 0, "inner": {"x": "…"}, "text": "…"}


# Any JSON


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(FOREIGN_SCHEMAS)
@example({"type": "object", "properties": {"p": {"type": "object", "required": True}}, "required": ["p"]})
@example({"type": "object", "properties": {"p": True}, "required": ["p"]})
@example({"$id": {}, "$anchor": None, "$defs": None})
def test_any_json_as_a_schema_gives_an_action_or_names_what_is_in_the_way(schema):
    with contextlib.suppress(NoActionError):
        action = make_action(schema).action
        assert isinstance(action, dict)
        json.dumps(action, allow_nan=False)


SCHEMAS = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(TYPES) | st.lists(st.sampled_from(TYPES), min_size=1, max_size=2, unique=True),
            "minimum": st.integers(-5, 5),
            "exclusiveMaximum": st.integers(-5, 5),
            "multipleOf": st.sampled_from([1, 2, 0.5]),
            "minLength": st.integers(0, 3),
            "pattern": st.sampled_from(["^a", "b$", "[0-9]{2}"]),
            "minItems": st.integers(0, 3),
            "uniqueItems": st.booleans(),
            "enum": st.lists(st.integers(), min_size=1, max_size=2),
            "required": st.lists(st.sampled_from(["a", "b"]), max_size=2, unique=True),
            "$ref": st.sampled_from(["#/$defs/A", "#/$defs/B"]),
        },
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
            "required": st.lists(st.sampled_from(["a", "b"]), max_size=2, unique=True),
            "minProperties": st.integers(0, 3),
            "items": inner,
            "type": st.sampled_from(["object", "array"]),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
        },
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(SCHEMAS, SCHEMAS, SCHEMAS)
def test_an_action_is_valid_by_the_schema_as_it_was_published(schema, first, second):
    # Those that are referred to refer to a third, so that none refers to itself.
    first, second = (
        json.loads(json.dumps(part).replace("$defs/A", "$defs/C").replace("$defs/B", "$defs/C"))
        for part in (first, second)
    )
    published = {**schema, "$defs": {"A": first, "B": second, "C": {}}}
    with contextlib.suppress(NoActionError):
        assert not list(jsonschema.Draft202012Validator(published).iter_errors(dict(make_action(published).action)))
