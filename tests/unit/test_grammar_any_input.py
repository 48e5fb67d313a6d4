"""Whatever is written, a parser returns a value or raises one clear line, never another exception."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_openenv_scale.config.think import parse_think
from pytest_openenv_scale.config.values import parse_steps, parse_written_arrival
from pytest_openenv_scale.config.workload import parse_action, parse_reset
from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.parsing import (
    parse_arrival,
    parse_batches,
    parse_count,
    parse_fraction,
    parse_header,
    parse_json,
    parse_mode,
    parse_modes,
    parse_number,
    parse_seconds,
    parse_waits,
)
from pytest_openenv_scale.core.target_spec import parse_target

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.lists(st.one_of(st.integers(), st.text(), st.floats(), st.none()), max_size=5),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.decimals(),
    st.fractions(),
    st.complex_numbers(),
)
PARSERS = {
    "batches": parse_batches,
    "waits": parse_waits,
    "seconds": parse_seconds,
    "fraction": parse_fraction,
    "count": parse_count,
    "number": parse_number,
    "mode": parse_mode,
    "modes": parse_modes,
    "arrival": parse_arrival,
    "arrival that is written": parse_written_arrival,
    "steps": parse_steps,
    "think": lambda value: parse_think(value, Path()),
    "target": parse_target,
    "header": parse_header,
    "action": parse_action,
    "reset": parse_reset,
    "json": lambda value: parse_json(value, "an action"),
}
LIKELY = st.text(alphabet="0123456789.,eE+-%smhuµ rate=holdniyfxp_:/@?&#wsttp[]{}\"'\\\x00\n", max_size=30)


@pytest.mark.parametrize("name", PARSERS)
@settings(deadline=None)
@given(value=st.one_of(ANYTHING, LIKELY))
def test_any_value_parses_or_gives_one_line_and_nothing_else(name, value):
    try:
        PARSERS[name](value)
    except GrammarError as error:
        text = str(error)
        assert text
        assert "\n" not in text
        assert len(text) < 500
