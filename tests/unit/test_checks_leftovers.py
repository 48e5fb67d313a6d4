"""What goes on where the last episode stopped has to do so after episodes of every length."""

from __future__ import annotations

import pytest

from checking_subjects import make_subject
from pytest_openenv_scale.checks.isolation.observations import Identities
from pytest_openenv_scale.checks.isolation.reference import Leftovers, SingleReference

KNOWN = SingleReference(
    subject=make_subject("http://127.0.0.1:9"),
    identities=Identities(),
    expected=tuple({"observation.steps": step} for step in range(7)),
    distinguishing=frozenset({"observation.steps"}),
    has_state=False,
    counts_steps=False,
    seeded=True,
    texts=(),
)


@pytest.mark.parametrize(
    ("seen_after", "lengths", "leaks"),
    [((1, 2), {1, 2, 3}, 0), ((1, 2, 3), {1, 2, 3}, 1), ((1, 2), {1, 2}, 1), ((1,), {1, 2}, 0)],
)
def test_after_each_length_of_up_to_three(seen_after: tuple[int, ...], lengths: set[int], leaks: int) -> None:
    leftovers = Leftovers(KNOWN)
    for before in seen_after:
        leftovers.inspect({"observation.steps": 1 + before}, 1, before, "a session", ())
    assert len(leftovers.confirmed(lengths)) == leaks


def test_what_showed_anything_else_even_once_is_none() -> None:
    leftovers = Leftovers(KNOWN)
    for before in (1, 2, 3):
        leftovers.inspect({"observation.steps": 1 + before}, 1, before, "a session", ())
    leftovers.inspect({"observation.steps": 40}, 1, 2, "a session", ())
    assert leftovers.confirmed({1, 2, 3}) == []
