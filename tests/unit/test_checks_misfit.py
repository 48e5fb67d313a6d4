"""Actions that do not fit `/schema` are made from it, one thing wrong at a time; what it leaves open is lacking."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings

from foreign_schemas import FOREIGN_SCHEMAS
from goldens import Golden
from pytest_openenv_scale.checks.isolation.observations import token_fields
from pytest_openenv_scale.checks.protocol import cases as protocol_cases

SCHEMA: dict[str, Any] = {
    "$defs": {"Count": {"type": "integer", "exclusiveMinimum": 0}, "Mode": {"enum": ["a", "b"], "type": "string"}},
    "type": "object",
    "additionalProperties": False,
    "required": ["mode"],
    "properties": {
        "anything": {},
        "mode": {"$ref": "#/$defs/Mode"},
        "count": {"anyOf": [{"$ref": "#/$defs/Count"}, {"type": "null"}]},
        "text": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "metadata": {"type": "object"},
    },
}
ACTION = {"mode": "a"}


def _with(**changes: Any) -> dict[str, Any]:
    return {**SCHEMA, **changes}


def _fields(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields}


@pytest.mark.parametrize("schema", [SCHEMA, {"$ref": "#/$defs/Act", "$defs": {**SCHEMA["$defs"], "Act": SCHEMA}}])
def test_an_action_is_made_wrong_in_one_place(schema) -> None:
    assert protocol_cases.unknown_field(schema, ACTION) == {"mode": "a", "no_such_field": 1}
    assert protocol_cases.wrapped_action(schema, ACTION) == {"action": {"mode": "a"}}
    assert protocol_cases.wrong_type(schema, ACTION) == {"mode": {"not": "a plain value"}}
    assert protocol_cases.out_of_range(schema, ACTION) == {"mode": "a", "count": -1}
    assert protocol_cases.long_text(schema, ACTION, 3) == {"mode": "a", "text": "xxx"}


def test_a_field_that_is_taken_is_not_an_unknown_one() -> None:
    schema = {**_fields(no_such_field={"type": "integer"}), "additionalProperties": False}
    assert protocol_cases.unknown_field(schema, {}) == {"no_such_field_": 1}


def test_other_places_are_found_where_the_usual_ones_are_missing() -> None:
    assert protocol_cases.wrong_type(_fields(metadata={"type": "object"}), {}) == {"metadata": ["not an object"]}
    assert protocol_cases.out_of_range(_fields(n={"type": "number", "maximum": 5}), {}) == {"n": 6}
    assert protocol_cases.long_text(_fields(mode={"type": "string", "maxLength": 9}), {}, 3) == {"no_such_field": "xxx"}
    assert protocol_cases.long_text(None, {}, 3) == {"no_such_field": "xxx"}


@pytest.mark.parametrize(
    ("make", "schema"),
    [
        (protocol_cases.unknown_field, None),
        (protocol_cases.unknown_field, {"anyOf": [SCHEMA]}),
        (protocol_cases.unknown_field, _with(additionalProperties=True)),
        (protocol_cases.wrapped_action, _fields(action={"type": "string"})),
        (protocol_cases.wrapped_action, _fields(text={"type": "string"})),
        (protocol_cases.wrong_type, _fields(anything={}, either={"anyOf": [{}, {"type": "null"}]})),
        (
            protocol_cases.out_of_range,
            _fields(n={"type": "number"}, text={"type": "string", "minimum": 3}),
        ),
        (protocol_cases.out_of_range, _fields(n={"type": "number", "maximum": 1e300})),
    ],
)
def test_what_a_schema_leaves_open_is_lacking(golden: Golden, make, schema) -> None:
    with pytest.raises(protocol_cases.CaseNotApplicableError) as caught:
        make(schema, {})
    golden(caught.value)


MAKERS = (
    protocol_cases.unknown_field,
    protocol_cases.wrapped_action,
    protocol_cases.wrong_type,
    protocol_cases.out_of_range,
    partial(protocol_cases.long_text, characters=3),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(FOREIGN_SCHEMAS)
@example({"properties": {"a": {"type": [{}], "minLength": "b", "minimum": True, "$ref": "#/properties/b/~1"}}})
@example({"properties": {"a": {"type": "string", "minLength": "b"}}})
def test_any_json_as_a_schema_gives_a_wrong_action_or_says_what_is_lacking(schema) -> None:
    token_fields(schema, True, 8)
    for make in MAKERS:
        with suppress(protocol_cases.CaseNotApplicableError):
            assert isinstance(make(schema, {"a": 1}), dict)
