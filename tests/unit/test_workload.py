"""What sessions say: actions given, made from a schema, or called for."""

from __future__ import annotations

import contextlib
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_openenv_scale.config.workload import (
    ActionSource,
    Workload,
    WorkloadError,
    import_callable,
    make_workload,
    minimal_value,
)

PROBE = {  # the action schema of a pydantic model with defaults, as openenv publishes it
    "additionalProperties": False,
    "properties": {
        "metadata": {"additionalProperties": True, "title": "Metadata", "type": "object"},
        "op": {"default": "noop", "title": "Op", "type": "string"},
        "value": {"default": 0, "minimum": 0, "title": "Value", "type": "integer"},
    },
    "title": "ProbeAction",
    "type": "object",
}
WAITING = {"type": "object", "properties": {"wait_seconds": {"type": "number", "default": 0.0}}}


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module of actions and return its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(text: str) -> str:
        (tmp_path / "my_actions.py").write_text(text)
        sys.modules.pop("my_actions", None)
        return "my_actions"

    yield write
    sys.modules.pop("my_actions", None)


# From /schema


def test_a_server_without_a_schema_is_asked_to_wait():
    workload = make_workload(None, None, None)
    assert workload.waits
    assert workload.maker(0.5)(0, 0) == {"wait_seconds": 0.5}


def test_an_action_that_can_wait_waits_as_long_as_the_cell_says():
    workload = make_workload(WAITING, None, None)
    assert workload.waits
    assert workload.maker(1.5)(3, 2) == {"wait_seconds": 1.5}


def test_any_other_action_is_minimal_and_has_no_wait():
    workload = make_workload(PROBE, None, {"seed": 1})
    assert not workload.waits
    assert workload.source == "/schema"
    assert workload.reset == {"seed": 1}
    assert workload.maker(None)(0, 0) == {}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"const": 3}, 3),
        ({"type": "string", "default": "x"}, "x"),
        ({"type": "string", "examples": ["say hi"]}, "say hi"),
        ({"enum": ["up", "down"]}, "up"),
        ({"type": "string"}, "hello"),
        ({"type": "string", "minLength": 8}, "helloxxx"),
        ({"type": "string", "maxLength": 2}, "xx"),
        ({"type": "boolean"}, False),
        ({"type": "null"}, None),
        ({"type": "integer"}, 0),
        ({"type": "integer", "minimum": 3}, 3),
        ({"type": "integer", "exclusiveMinimum": 3}, 4),
        ({"type": "integer", "maximum": -2}, -2),
        ({"type": "integer", "exclusiveMaximum": -2}, -3),
        ({"type": "integer", "minimum": 1.5}, 2),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.5),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [0, 0]),
        ({"type": "array"}, []),
        ({"type": ["string", "null"]}, "hello"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 0),
        ({"oneOf": [{"type": "boolean"}]}, False),
        ({"allOf": [{"type": "integer", "minimum": 2}]}, 2),
        ({"allOf": [{"required": ["a"], "type": "object"}, {"default": {"b": 1}}]}, {"a": {}, "b": 1}),
        ({}, {}),
    ],
)
def test_a_field_gets_the_smallest_value_its_schema_admits(schema, value):
    found = minimal_value(schema)
    assert found == value
    assert type(found) is type(value)


def test_a_reference_may_name_what_has_a_slash_or_a_tilde():
    schema = {"$ref": "#/$defs/a~1b~0c", "$defs": {"a/b~c": {"type": "object", "default": {"x": 1}}}}
    assert minimal_value(schema) == {"x": 1}


def test_required_fields_are_made_also_behind_references():
    schema = {
        "type": "object",
        "required": ["move", "note"],
        "properties": {"move": {"$ref": "#/$defs/Move"}, "note": {"type": "string"}, "optional": {"type": "integer"}},
        "$defs": {"Move": {"type": "object", "required": ["x"], "properties": {"x": {"type": "integer"}}}},
    }
    assert make_workload(schema, None, None).maker(None)(0, 0) == {"move": {"x": 0}, "note": "hello"}


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "string"}, "not an object"),
        ({"$ref": "#/$defs/Missing"}, "leads nowhere"),
        ({"$ref": "#"}, "nests too deeply"),
        ({"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#"}}}, "nests too deeply"),
    ],
)
def test_a_schema_from_which_no_action_can_be_made_is_one_line_with_the_way_out(schema, why):
    with pytest.raises(WorkloadError, match=why) as caught:
        make_workload(schema, None, None)
    assert "--openenv-action" in str(caught.value)
    assert "\n" not in str(caught.value)


SCHEMAS = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["string", "integer", "number", "boolean", "null", "array", "object", "weird"])
            | st.lists(st.sampled_from(["string", "null"]), max_size=2),
            "minimum": st.integers(-5, 5),
            "exclusiveMaximum": st.integers(-5, 5) | st.booleans(),
            "minLength": st.integers(0, 3),
            "minItems": st.integers(0, 3),
            "enum": st.lists(st.integers(), max_size=2),
            "required": st.lists(st.sampled_from(["a", "b"]), max_size=2),
            "$ref": st.sampled_from(["#", "#/properties/a", "#/nowhere", "elsewhere.json"]),
        },
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
            "required": st.lists(st.sampled_from(["a", "b"]), max_size=2),
            "items": inner,
            "type": st.sampled_from(["object", "array"]),
            "anyOf": st.lists(inner, max_size=2),
            "allOf": st.lists(inner, max_size=2),
        },
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(SCHEMAS)
def test_any_schema_gives_an_action_or_a_clear_error(schema):
    with contextlib.suppress(WorkloadError):
        assert isinstance(make_workload(schema, None, None).maker(0.1)(0, 0), dict)


# As given


def test_an_action_given_is_said_at_every_step():
    make = make_workload(WAITING, ActionSource("json", {"op": "go"}), None).maker(1.0)
    assert [make(0, step) for step in range(3)] == [{"op": "go"}] * 3


def test_only_an_action_that_mentions_the_wait_has_a_wait_axis():
    assert not make_workload(WAITING, ActionSource("json", {"op": "go"}), None).waits
    waiting = make_workload(PROBE, ActionSource("json", {"nested": [{"for": "$wait"}], "not": "$waiting"}), None)
    assert waiting.waits
    assert waiting.maker(2.0)(0, 0) == {"nested": [{"for": 2.0}], "not": "$waiting"}
    assert waiting.maker(None)(0, 0) == {"nested": [{"for": 0.0}], "not": "$waiting"}


def test_one_action_per_step_repeats_the_last_beyond_its_end():
    source = ActionSource("lines", ({"n": 1}, {"n": 2}))
    make = make_workload(None, source, None).maker(1.0)
    assert [make(9, step) for step in range(4)] == [{"n": 1}, {"n": 2}, {"n": 2}, {"n": 2}]


# Reset data


def test_the_reset_data_of_a_session_has_its_seed_wherever_it_is_asked():
    workload = make_workload(WAITING, None, {"seed": "$seed", "options": [{"seed": "$seed", "name": "$seeds"}]})
    assert workload.seeded
    assert workload.reset_data(41) == {"seed": 41, "options": [{"seed": 41, "name": "$seeds"}]}


def test_reset_data_without_a_seed_is_said_as_it_is():
    workload = make_workload(WAITING, None, {"seed": 7})
    assert not workload.seeded
    assert workload.reset_data(41) == {"seed": 7}


# From a callable


def test_a_callable_is_asked_per_session_and_step(module):
    name = module("def act(session, step):\n    return {'session': session, 'step': step, 'wait': '$wait'}\n")
    workload = make_workload(None, ActionSource("callable", f"{name}:act"), None)
    assert workload.waits
    assert workload.maker(0.2)(4, 1) == {"session": 4, "step": 1, "wait": 0.2}


def test_a_callable_may_be_a_method_of_something(module):
    name = module("class Player:\n    @staticmethod\n    def act(session, step):\n        return {}\n")
    assert import_callable(f"{name}:Player.act")(0, 0) == {}


@pytest.mark.parametrize(
    "reference",
    [
        "no_such_module_at_all:act",
        "my_actions:missing",
        "my_actions:NUMBER",
        "my_actions:act.inner",
        "my_actions:",
    ],
)
def test_a_callable_that_is_not_there_is_one_line(golden, module, reference):
    module("NUMBER = 1\ndef act(session, step):\n    return {}\n")
    with pytest.raises(WorkloadError) as caught:
        Workload(function=reference).maker(1.0)
    golden(caught.value)


def test_a_module_that_fails_to_import_says_how(golden, module):
    name = module("raise RuntimeError('needs a display')\n")
    with pytest.raises(WorkloadError) as caught:
        Workload(function=f"{name}:act").maker(1.0)
    golden(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        "return 1 / 0",
        "return [1]",
        "return {'a': {1}}",
        "return {'a': float('nan')}",
        "return None",
    ],
)
def test_a_callable_that_fails_names_the_call(golden, module, body):
    name = module(f"def act(session, step):\n    {body}\n")
    with pytest.raises(WorkloadError) as caught:
        Workload(function=f"{name}:act").maker(1.0)(2, 3)
    golden(caught.value)
