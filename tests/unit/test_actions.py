"""Actions and reset data as a person writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_openenv_scale.config.workload import ActionSource, Workload, parse_action, parse_reset
from pytest_openenv_scale.core import files
from pytest_openenv_scale.core.errors import GrammarError

PATHS = {r"'/[^'…]*['…]": "FILE"}
"""A path is cut where it is long, which depends on where temporary files are."""


@pytest.mark.parametrize(
    ("value", "action"),
    [
        ('{"a": 1}', {"a": 1}),
        (' {"wait": "$wait"} ', {"wait": "$wait"}),
        ({"a": [1, None]}, {"a": [1, None]}),
        ({}, {}),
        ({1: "keys of JSON are text"}, {"1": "keys of JSON are text"}),
    ],
)
def test_an_object_is_the_action_of_every_step(value, action):
    assert parse_action(value) == ActionSource("json", action)


def test_an_action_is_a_copy():
    value = {"a": []}
    action = parse_action(value)
    value["a"].append(1)
    assert action.value == {"a": []}


@pytest.mark.parametrize("text", ["module:function", "pkg.module:function", "pkg.module:Class.method", " m:f ", "é:f"])
def test_a_reference_names_what_load_processes_import(text):
    assert parse_action(text) == ActionSource("callable", text.strip())


def test_an_action_source_is_taken_as_it_is():
    source = ActionSource("callable", "m:f")
    assert parse_action(source) is source


def test_a_file_gives_one_action_per_step(tmp_path):
    (tmp_path / "actions.jsonl").write_text('\ufeff{"a": 1}\n\n  {"a": "$wait"}\n', encoding="utf-8")
    assert parse_action("@actions.jsonl", tmp_path) == ActionSource("lines", ({"a": 1}, {"a": "$wait"}))
    assert parse_action(f"@{tmp_path}/actions.jsonl", Path("/elsewhere")).kind == "lines"


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"\n \n",
        b'{"a": 1}\n[1]',
        b'{"a": 1}\n{',
        b"\xff",
        b'{"a": NaN}',
    ],
)
def test_a_wrong_file_is_refused_with_its_line(golden, tmp_path, content):
    if content is not None:
        (tmp_path / "actions.jsonl").write_bytes(content)
    with pytest.raises(GrammarError) as error:
        parse_action("@actions.jsonl", tmp_path)
    golden(error.value, masks=PATHS)
    assert "\n" not in str(error.value)


def test_a_folder_is_no_action_file(tmp_path):
    with pytest.raises(GrammarError, match="cannot read file"):
        parse_action("@.", tmp_path)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_WRITTEN_BYTES", 4)
    (tmp_path / "actions.jsonl").write_text('{"a": 1}')
    with pytest.raises(GrammarError, match="is larger than"):
        parse_action("@actions.jsonl", tmp_path)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "hello",
        "module:",
        "my-module:f",
        "[1]",
        "@",
        "@a\0b",
        '{"a": }',
        [1],
        5,
        {"a": object()},
        {"a": float("nan")},
        print,
    ],
)
def test_what_is_no_action_is_refused(golden, value):
    with pytest.raises(GrammarError) as error:
        parse_action(value)
    golden(error.value)


def test_reset_data_is_an_object():
    assert parse_reset('{"seed": 1}') == {"seed": 1}
    assert parse_reset({"seed": 1}) == {"seed": 1}


@pytest.mark.parametrize("value", ["1", "[]", 5, "null", "x", None, {"a": {1}}])
def test_what_is_no_reset_data_is_refused(value):
    with pytest.raises(GrammarError, match=r"^reset data must be"):
        parse_reset(value)


@pytest.mark.parametrize(
    ("parse", "value"),
    [
        (parse_reset, '{"seed": "$sed"}'),
        (parse_reset, {"options": [{"seed": "$SEEDS"}]}),
        (parse_reset, '{"seed": "$wait"}'),
        (parse_action, '{"for": "$wiat"}'),
        (parse_action, '{"for": "$seed"}'),
        (parse_action, '{"for": "${wait}"}'),
    ],
)
def test_a_mistyped_placeholder_is_refused_with_the_one_that_was_meant(golden, parse, value):
    with pytest.raises(GrammarError) as error:
        parse(value)
    golden(error.value)


def test_a_mistyped_placeholder_of_a_file_is_named_with_its_line(golden, tmp_path):
    (tmp_path / "actions.jsonl").write_text('{"a": "$wait"}\n{"a": "$wat"}\n')
    with pytest.raises(GrammarError) as error:
        parse_action("@actions.jsonl", tmp_path)
    golden(error.value)


def test_a_placeholder_with_a_dollar_before_it_is_the_text_itself():
    data = parse_reset({"a": "$$seed", "b": ["$$sed"], "c": "$seed", "d": "$$"})
    assert Workload(reset=data).reset_data(2, 5) == {"a": "$seed", "b": ["$sed"], "c": 7, "d": "$$"}


@pytest.mark.parametrize("text", ["$", "$5", "$HOME", "$wait seconds", "sed", "$x", "what costs $wait?"])
def test_other_text_with_a_dollar_is_said_as_it_is(text):
    assert parse_reset({"text": text}) == {"text": text}
    assert parse_action({"text": text}).value == {"text": text}
