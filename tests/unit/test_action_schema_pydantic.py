"""Actions made for pydantic classes are accepted by them: whatever fields such a class has."""

from __future__ import annotations

import datetime
import decimal
import enum
import ipaddress
import json
import operator
import uuid
from typing import Annotated, Any, Literal, Union

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import (
    AnyUrl,
    Base64Bytes,
    BaseModel,
    ConfigDict,
    EmailStr,
    Field,
    HttpUrl,
    Json,
    NameEmail,
    RootModel,
    SecretStr,
    StringConstraints,
    create_model,
)

from pytest_openenv_scale.config.action_schema.make import make_action


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Buy(BaseModel):
    type: Literal["buy"] = "buy"
    amount: Annotated[int, Field(gt=0)]


class Sell(BaseModel):
    type: Literal["sell", "short"] = "sell"
    amount: Annotated[float, Field(gt=0, lt=1)]


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


class Chain(BaseModel):
    value: int
    then: Chain | None


def union(kinds):
    return operator.getitem(Union, tuple(kinds))


TEXTS = st.sampled_from([r"^[a-h][1-8]$", r"^\d{4}-\d{2}$", r"^(up|down)+$", r"\S+@\S+", "^[A-Z]{3,5}$", "^#[a-f]{6}$"])


@st.composite
def whole_numbers(draw):
    low, step = draw(st.integers(-50, 50)), draw(st.sampled_from([1, 1, 3, 5]))
    bounds = draw(st.sampled_from([{"ge": low}, {"gt": low}, {"ge": low, "lt": low + 12}, {"le": low}, {"lt": low}]))
    return Annotated[int, Field(**bounds, multiple_of=step)]


@st.composite
def numbers(draw):
    low = draw(st.floats(-50, 50, allow_subnormal=False))
    bounds = st.sampled_from([{"ge": low}, {"gt": low}, {"gt": low, "lt": low + 0.5}, {"le": low}, {"lt": low}])
    return Annotated[draw(st.sampled_from([float, decimal.Decimal])), Field(**draw(bounds))]


@st.composite
def strings(draw):
    least = draw(st.integers(0, 40))
    return Annotated[str, StringConstraints(min_length=least, max_length=least + draw(st.integers(0, 5)))]


HASHABLE = (
    st.sampled_from([int, str, float, uuid.UUID, datetime.date, datetime.datetime, tuple[int, bool], bytes])
    # Between two bounds there may be fewer multiples than a set is to hold.
    | whole_numbers().filter(lambda kind: len(kind.__metadata__[0].metadata) < 3)
    | strings().filter(lambda kind: kind.__metadata__[0].max_length > 3)
)
LEAVES = (
    st.sampled_from(
        [
            *(int, float, str, bool, bytes, None, Any, Literal["a", "b"], Literal[3], Colour, Level, SecretStr, dict),
            *(uuid.UUID, datetime.datetime, datetime.date, datetime.time, datetime.timedelta, decimal.Decimal),
            *(ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Network, ipaddress.IPv6Interface),
            *(AnyUrl, HttpUrl, EmailStr, NameEmail, Base64Bytes, Json, Json[list[int]], Json[Colour]),
            *(Buy, Sell, Tree, Chain, Annotated[Buy | Sell, Field(discriminator="type")]),
            *(set[Annotated[Colour, Field()]], Annotated[set[Colour], Field(min_length=3)]),
            *(Annotated[list[float], Field(min_length=100, max_length=100)], Annotated[set[int], Field(min_length=60)]),
            *(Annotated[dict[Colour, int], Field(min_length=2)], Annotated[dict[int, float], Field(min_length=2)]),
        ]
    )
    | whole_numbers()
    | numbers()
    | strings()
    | TEXTS.map(lambda pattern: Annotated[str, StringConstraints(pattern=pattern)])
)


def inside(kinds):
    sizes = st.integers(0, 4)
    return (
        st.builds(lambda kind, size: Annotated[list[kind], Field(min_length=size)], kinds, sizes)
        | st.builds(lambda kind, size: Annotated[list[kind], Field(min_length=size, max_length=size)], kinds, sizes)
        | st.lists(kinds, min_size=1, max_size=4).map(lambda parts: tuple[tuple(parts)])
        | st.builds(lambda kind, size: Annotated[dict[str, kind], Field(min_length=size)], kinds, st.integers(0, 5))
        | st.builds(lambda kind: union((kind, None)), kinds)
        | st.lists(kinds, min_size=1, max_size=3).map(union)
        | models(kinds)
    )


@st.composite
def models(draw, kinds):
    fields: dict[str, Any] = {}
    for number, kind in enumerate(draw(st.lists(kinds, min_size=1, max_size=4))):
        alias = draw(st.sampled_from([None, None, f"Field {number}/~"]))
        fields[f"field_{number}"] = (kind, Field(alias=alias) if alias else ...)
    config = ConfigDict(extra=draw(st.sampled_from(["ignore", "forbid"])))
    return create_model("Drawn", __config__=config, **fields)


KINDS = st.recursive(
    LEAVES | st.builds(lambda kind, size: Annotated[set[kind], Field(min_length=size)], HASHABLE, st.integers(0, 5)),
    inside,
    max_leaves=6,
)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(models(KINDS))
def test_a_class_accepts_the_action_that_is_made_for_it(model):
    action = make_action(json.loads(json.dumps(model.model_json_schema()))).action
    model.model_validate_json(json.dumps(action))


class Query(BaseModel):
    tool: Literal["query"] = "query"
    parameters: dict[str, Any]


class Listing(BaseModel):
    tool: Literal["list"] = "list"


@pytest.mark.parametrize("kinds", [Annotated[Query | Listing, Field(discriminator="tool")], Query | Listing])
def test_an_action_may_be_a_union(kinds):
    action_class = RootModel[kinds]
    action = make_action(action_class.model_json_schema()).action
    assert action == {"tool": "query", "parameters": {}}
    action_class.model_validate_json(json.dumps(action))
