"""Identities are known again; a number that is somebody's seed only once may be one by chance."""

from __future__ import annotations

from pytest_openenv_scale.checks.isolation.observations import Identities


def test_a_foreign_seed_counts_from_the_second_time_on() -> None:
    identities = Identities()
    first, second, third = (identities.new() for _ in range(3))
    foreign: set[int] = set()
    for _ in range(3):
        assert identities.label_number(first.seed, second, foreign) == first.seed
    assert foreign == set()  # One session shows the same number again and again.
    assert identities.label_number(second.seed, third, foreign) == second.seed
    assert foreign == {second.number}
    identities.label_number(first.seed, second, foreign)
    assert foreign == {first.number, second.number}


def test_its_own_seed_is_nobody_elses() -> None:
    identities = Identities()
    me, other = identities.new(), identities.new()
    foreign: set[int] = set()
    assert identities.label_number(me.seed, me, foreign) == "<its own seed>"
    identities.label_number(me.seed, other, foreign)
    assert foreign == set()


def test_a_foreign_token_counts_at_once() -> None:
    identities = Identities()
    me, other = identities.new(), identities.new()
    foreign: set[int] = set()
    assert identities.label_text(f"{me.token} {other.token}", me, foreign) == f"<its own token> {other.token}"
    assert foreign == {other.number}
