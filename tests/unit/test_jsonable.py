"""Dataclasses to JSON and back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

import pytest
from cells import a_curve, a_meta, a_summary, an_slo
from hypothesis import given
from hypothesis import strategies as st

from pytest_openenv_scale.core.serialization import Jsonable, JsonError
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.cell import CellMeta
from pytest_openenv_scale.results.outcome import CurveVerdict
from pytest_openenv_scale.verdict.sweep import judge_curve


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Inner(Jsonable):
    number: float
    colour: Colour | None = None


@dataclass(frozen=True)
class Outer(Jsonable):
    name: str
    at: datetime | None = None
    inners: tuple[Inner, ...] = ()
    counts: Mapping[str, int | str] = field(default_factory=dict)
    flag: bool = False


def through_text(value):
    return type(value).from_json(json.loads(json.dumps(value.to_json(), allow_nan=False)))


@given(
    st.builds(
        Outer,
        st.text(),
        st.none() | st.datetimes(timezones=st.just(UTC)),
        st.lists(
            st.builds(Inner, st.floats(allow_nan=False, allow_infinity=False), st.none() | st.just(Colour.RED))
        ).map(tuple),
        st.dictionaries(st.text(), st.integers() | st.text()),
        st.booleans(),
    )
)
def test_a_value_survives_json_text_unchanged(value):
    assert through_text(value) == value


@pytest.mark.parametrize(
    "value",
    [
        a_meta(limits={"workers": 2, "server": "uvicorn"}, log_tail="ERROR"),
        a_summary(8, failed=2),
        judge_curve(a_curve(4, 8), [a_summary(4), a_summary(8, failed=4)], an_slo(max_batch=8, total_p99="2s")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_stored_results_survive_json_text_unchanged(value: CellMeta | CellSummary | CurveVerdict):
    assert through_text(value) == value


def test_whole_numbers_read_as_floats_where_floats_belong():
    wait = Inner.from_json({"number": 1}).number
    assert isinstance(wait, float)


def test_unknown_keys_of_a_newer_writer_are_ignored():
    assert Inner.from_json({"number": 1.5, "shade": "dark"}) == Inner(1.5)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"name": 3},
        {"name": "x", "inners": [{"number": "many"}]},
        {"name": "x", "inners": [{"number": 1, "colour": "blue"}]},
        {"name": "x", "inners": {}},
        {"name": "x", "counts": {"a": 1.5}},
        {"name": "x", "at": "noon"},
        {"name": "x", "flag": 1},
        {"name": "x", "inners": [{"number": True}]},
        {"name": "x", "counts": {"a": True}},
        [],
    ],
)
def test_json_that_does_not_fit_is_told_by_its_place(golden, data):
    with pytest.raises(JsonError) as caught:
        Outer.from_json(data)
    golden(caught.value)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_not_stored(number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        Inner(number).to_json()


def test_a_type_without_a_json_form_is_refused():
    with pytest.raises(TypeError, match="complex is unsupported"):
        Outer("x", counts={"a": 1j}).to_json()
