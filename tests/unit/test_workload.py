"""What sessions say: actions given, made from a schema, or called for."""

from __future__ import annotations

import sys

import pytest

from pytest_openenv_scale.config.workload import (
    ActionSource,
    Workload,
    WorkloadError,
    import_callable,
    make_workload,
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
    assert (workload.waits, workload.guessed, workload.made_up) == (True, True, False)
    assert workload.maker(0.5)(0, 0) == {"wait_seconds": 0.5}


def test_an_action_that_can_wait_waits_as_long_as_the_cell_says():
    workload = make_workload(WAITING, None, None)
    assert workload.waits
    assert workload.maker(1.5)(3, 2) == {"wait_seconds": 1.5}


def test_any_other_action_is_minimal_and_has_no_wait():
    workload = make_workload(PROBE, None, {"seed": 1})
    assert not workload.waits
    assert (workload.source, workload.guessed) == ("/schema", False)
    assert workload.reset == {"seed": 1}
    assert workload.maker(None)(0, 0) == {}


@pytest.mark.parametrize(
    ("schema", "line"),
    [
        ({"type": "string"}, "(#/type: it is not an object); write one with --openenv-action '{…}'"),
        (
            {
                "type": "object",
                "required": ["n", "text"],
                "properties": {"text": {"pattern": "\\p{L}", "type": "string"}},
            },
            """--openenv-action '{"n": {}, "text": "…"}'""",
        ),
        (
            {"required": ["it's"], "properties": {"it's": False}},
            """--openenv-action '{"it'"'"'s": "…"}'""",
        ),
        (
            {"required": ["a\nb\x1b[31m"], "properties": {"a\nb\x1b[31m": False}},
            "(#/properties/a b: it admits nothing)",
        ),
        ({"required": [f"field{number}" for number in range(99)], "properties": {"field7": False}}, "'{…}'"),
    ],
)
def test_where_no_action_can_be_made_one_line_says_why_and_what_to_fill_in(schema, line):
    with pytest.raises(WorkloadError) as caught:
        make_workload(schema, None, None)
    assert line in str(caught.value)
    assert str(caught.value).startswith("no action can be made from /schema (#/")
    assert str(caught.value).isprintable()


def test_the_wait_is_put_where_the_kind_of_action_that_is_made_has_a_field_for_it():
    waiting = {"type": "object", "properties": {"wait_seconds": {"type": "number"}}, "required": ["wait_seconds"]}
    other = {"type": "object", "properties": {"op": {"const": "go"}}}
    assert make_workload({"$ref": "#/$defs/W", "$defs": {"W": waiting}}, None, None).waits
    assert make_workload({"anyOf": [waiting, other]}, None, None).maker(2.0)(0, 0) == {"wait_seconds": 2.0}
    assert not make_workload({"anyOf": [other, waiting]}, None, None).waits


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
    assert workload.reset_data(1, 40) == {"seed": 41, "options": [{"seed": 41, "name": "$seeds"}]}


def test_reset_data_without_a_seed_is_said_as_it_is():
    workload = make_workload(WAITING, None, {"seed": 7})
    assert not workload.seeded
    assert workload.reset_data(1, 40) == {"seed": 7}


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
