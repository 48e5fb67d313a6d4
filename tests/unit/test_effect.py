"""Cliff's delta: how far two sets of latencies lie apart."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from cells import a_cell, a_failure, a_meta, a_part, a_row
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_openenv_scale.analysis import compare
from pytest_openenv_scale.analysis.compare import CellRows, cliffs_delta, effect_size, latency_effect
from pytest_openenv_scale.results.run_directory import PARTS

LATENCIES = st.lists(st.floats(0, 100), min_size=1, max_size=30)


def test_a_published_example():
    # Romano et al. (2006): of 3 × 3 pairs 5 are above and 3 below.
    assert cliffs_delta([1, 3, 5], [2, 3, 6]) == pytest.approx((5 - 3) / 9)


@settings(deadline=None)
@given(LATENCIES, LATENCIES)
def test_it_is_the_share_of_pairs_above_less_that_below_and_antisymmetric(then, now):
    pairs = list(itertools.product(then, now))
    expected = (sum(a < b for a, b in pairs) - sum(a > b for a, b in pairs)) / len(pairs)
    assert cliffs_delta(then, now) == pytest.approx(expected)
    assert cliffs_delta(now, then) == pytest.approx(-expected)
    assert cliffs_delta(then, then) == 0


def test_nothing_has_no_delta():
    assert cliffs_delta([], [1.0]) is None
    assert cliffs_delta([1.0], []) is None


@pytest.mark.parametrize(
    ("delta", "word"), [(0.0, "negligible"), (-0.2, "small"), (0.4, "medium"), (-0.474, "large"), (1.0, "large")]
)
def test_its_size_has_a_word(delta, word):
    assert effect_size(delta) == word


def a_stored_cell(path, *, step, count=20, sweep="sweep") -> CellRows:
    cell = a_cell(count + 1)
    for repetition in (1, 2):
        meta = replace(a_meta(cell, repetition=repetition), sweep_id=sweep)
        ramp = [a_row(count + n, step=100.0, judged=False) for n in range(1, 4)]
        rows = [*(a_row(n, step=step + n / 1000) for n in range(count)), a_failure(count), *ramp]
        a_part(path / PARTS, rows, meta)
    return CellRows(path, sweep, cell.id)


def test_it_is_taken_from_the_judged_sessions_of_all_repetitions_that_succeeded(tmp_path):
    fast, slow = a_stored_cell(tmp_path / "a", step=1.0), a_stored_cell(tmp_path / "b", step=2.0)
    assert len(fast.latencies("total")) == 40
    assert max(slow.latencies("total")) < 100.0
    assert latency_effect(fast, slow, "total") == 1.0
    assert latency_effect(slow, fast, "step") == -1.0
    assert latency_effect(fast, slow, "connect") == 0.0


def test_rows_that_are_gone_or_of_another_sweep_leave_it_unknown(tmp_path):
    fast = a_stored_cell(tmp_path / "a", step=1.0)
    assert latency_effect(fast, replace(fast, run=tmp_path / "gone"), "total") is None
    assert latency_effect(fast, replace(fast, sweep_id="other"), "total") is None
    damaged = next((tmp_path / "a" / PARTS).glob("*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:50])
    assert len(fast.latencies("total")) == 20


def test_very_many_rows_are_thinned_in_order(tmp_path, monkeypatch):
    fast, slow = a_stored_cell(tmp_path / "a", step=1.0), a_stored_cell(tmp_path / "b", step=1.01)
    effect = latency_effect(fast, slow, "total")
    monkeypatch.setattr(compare, "MOST_VALUES", 20)
    assert len(fast.latencies("total")) == 20
    assert latency_effect(fast, slow, "total") == pytest.approx(effect, abs=0.05)
