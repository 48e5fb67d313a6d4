"""Think times: what is written, what is drawn, and what the mean of it is."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from goldens import Golden
from pytest_openenv_scale.config import think
from pytest_openenv_scale.config.think import CUT, DRAWN_AT_ONCE, ThinkTime, parse_think
from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.parsing import MAX_SECONDS

HERE = Path()
SECONDS = st.floats(min_value=1e-6, max_value=3600.0)
THINK_TIMES = st.one_of(
    st.builds(lambda time: ThinkTime("fixed", (time,)), SECONDS),
    st.builds(lambda ends: ThinkTime("uniform", tuple(sorted(ends))), st.tuples(SECONDS, SECONDS)),
    st.builds(lambda mean: ThinkTime("exponential", (mean,)), SECONDS),
    st.builds(
        lambda middle, sigma: ThinkTime("lognormal", (middle, sigma)), SECONDS, st.floats(min_value=1e-3, max_value=5.0)
    ),
)
SAMPLES = st.lists(st.floats(min_value=0.0, max_value=3600.0), min_size=1, max_size=30)


# What is written


@pytest.mark.parametrize(
    ("value", "kind", "parameters", "text"),
    [
        ("2s", "fixed", (2.0,), "2"),
        ("500ms", "fixed", (0.5,), "0.5"),
        (2, "fixed", (2.0,), "2"),
        (0.25, "fixed", (0.25,), "0.25"),
        ("uniform=1s..3s", "uniform", (1.0, 3.0), "uniform=1..3"),
        (" uniform = 500ms .. 1m ", "uniform", (0.5, 60.0), "uniform=0.5..60"),
        ("uniform=0..3", "uniform", (0.0, 3.0), "uniform=0..3"),
        ("exponential=2s", "exponential", (2.0,), "exponential=2"),
        ("lognormal=2s,0.8", "lognormal", (2.0, 0.8), "lognormal=2,0.8"),
        ("lognormal=1m, 1", "lognormal", (60.0, 1.0), "lognormal=60,1"),
    ],
)
def test_a_time_alone_is_fixed_and_a_distribution_has_its_name(value, kind, parameters, text):
    parsed = parse_think(value, HERE)
    assert (parsed.kind, parsed.parameters, str(parsed)) == (kind, parameters, text)


@pytest.mark.parametrize("value", ["0", 0, "0s", 0.0, "uniform=0..0"])
def test_no_time_at_all_is_false(value):
    assert not parse_think(value, HERE)


@pytest.mark.parametrize("value", ["1ms", "uniform=0..1ms", "exponential=1ms", "lognormal=1ms,0.1"])
def test_any_time_is_true(value):
    assert parse_think(value, HERE)


@given(THINK_TIMES)
def test_what_is_written_out_reads_back(written):
    assert parse_think(str(written), HERE) == written


@pytest.mark.parametrize(
    "value",
    [
        *("", "fast", "-1s", "8d", "169h", "exponential", "exponental=2s", "exponential=0", "exponential=-2s"),
        *("exponential=2s,3s", "exponential=48h", "lognormal=2s", "lognormal=0,1", "lognormal=2s,0", "lognormal=2s,11"),
        *("lognormal=2s,x", "lognormal=20h,0.8", "uniform=1s", "uniform=3s..1s", "uniform=..3s", "uniform=-1..3"),
        *("normal=2s,1s", "=2s", "@", "2s..3s"),
        *(True, None, [1, 2], {"mean": 2}, math.nan, math.inf, b"2s"),
    ],
    ids=repr,
)
def test_anything_else_is_refused_with_what_to_write(golden: Golden, value):
    with pytest.raises(GrammarError) as caught:
        parse_think(value, HERE)
    golden(caught.value)


# Samples


def test_samples_are_the_lines_of_a_file_beside_the_test(tmp_path):
    (tmp_path / "times.txt").write_text("2\n\n500ms\n 1.5s \n")
    parsed = parse_think("@times.txt", tmp_path)
    assert (parsed.kind, parsed.parameters) == ("samples", (2.0, 0.5, 1.5))


def test_samples_are_told_by_how_many_there_are_and_a_digest(tmp_path):
    texts: list[str] = []
    for name, lines in (("a", "1\n2\n"), ("same", "1s\n2.0\n"), ("other", "1\n3\n")):
        (tmp_path / name).write_text(lines)
        texts.append(str(parse_think(f"@{name}", tmp_path)))
    assert texts[0] == texts[1] != texts[2]
    assert texts[0].startswith("samples=2 ")


@pytest.mark.parametrize(
    "content",
    [None, "", "\n \n", "1\nfast\n", "1\n-2\n", "1\n700000\n", "\udcff"],
    ids=["missing", "empty", "blank", "words", "negative", "too long", "no text"],
)
def test_a_wrong_file_is_refused_with_its_line(golden: Golden, tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("times.txt").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(GrammarError) as caught:
        parse_think("@times.txt", Path())
    golden(caught.value)


def test_a_file_of_more_samples_than_are_kept_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(think, "MAX_SAMPLES", 2)
    (tmp_path / "times.txt").write_text("1\n2\n3\n")
    with pytest.raises(GrammarError, match=r"holds 3 think times; keep to 2$"):
        parse_think("@times.txt", tmp_path)


# What is drawn


@given(THINK_TIMES, st.integers(0, 99), st.integers(0, 99), st.integers(0, 9))
def test_the_same_numbers_draw_the_same_times_in_every_process(distribution, seed, session, round_number):
    times = distribution.draw(seed, session, round_number)
    assert times == pickle.loads(pickle.dumps(distribution)).draw(seed, session, round_number)
    assert len(times) == DRAWN_AT_ONCE


def test_another_seed_session_or_round_draws_other_times():
    exponential = ThinkTime("exponential", (1.0,))
    numbers = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 11, 1), (11, 1, 1)]
    assert len({tuple(exponential.draw(*each)) for each in numbers}) == len(numbers)


@given(THINK_TIMES, st.integers(0, 999))
def test_no_time_is_negative_or_longer_than_ten_medians(distribution, session):
    for time in distribution.draw(0, session, 0):
        assert 0 <= time <= distribution.longest <= CUT * distribution.median


@given(SAMPLES, st.integers(0, 999))
def test_samples_are_drawn_as_they_are_but_for_the_cut(samples, session):
    distribution = ThinkTime("samples", tuple(samples))
    kept = {min(time, distribution.longest) for time in samples}
    assert set(distribution.draw(0, session, 0)) <= kept
    assert distribution.mean == pytest.approx(fmean(min(time, distribution.longest) for time in samples))


def test_samples_of_which_most_are_zero_keep_the_others():
    mostly_zero = ThinkTime("samples", (0.0, 0.0, 0.0, 8.0))
    assert (mostly_zero.longest, mostly_zero.mean) == (8.0, 2.0)


def test_a_far_sample_is_cut_at_ten_medians():
    assert ThinkTime("samples", (1.0, 1.0, 1.0, 500.0)).mean == (3 + 10) / 4


@pytest.mark.parametrize(
    "text",
    [
        "2s",
        "uniform=1s..3s",
        "exponential=2s",
        "lognormal=2s,0.3",
        "lognormal=2s,0.8",
        "lognormal=2s,2",
        "lognormal=1,5",
    ],
)
def test_the_mean_is_that_of_what_is_drawn(text):
    distribution = parse_think(text, HERE)
    drawn = [time for session in range(2_000) for time in distribution.draw(7, session, 0)]
    spread = math.sqrt(fmean((time - distribution.mean) ** 2 for time in drawn) / len(drawn))
    assert fmean(drawn) == pytest.approx(distribution.mean, abs=5 * spread + 1e-12)


def test_one_in_1024_exponential_times_is_cut():
    # Ten medians are exceeded with a probability of 2 to the power of -10, and an exponential time has no memory.
    assert ThinkTime("exponential", (2.0,)).mean == pytest.approx(2.0 * (1 - 2**-10), rel=1e-12)


@pytest.mark.parametrize("text", ["uniform=1s..3s", "exponential=2s", "lognormal=2s,0.8"])
def test_half_of_what_is_drawn_is_shorter_than_the_median(text):
    distribution = parse_think(text, HERE)
    drawn = [time for session in range(1_000) for time in distribution.draw(3, session, 0)]
    shorter = sum(time < distribution.median for time in drawn)
    assert shorter == pytest.approx(len(drawn) / 2, abs=5 * math.sqrt(len(drawn)) / 2)


@given(THINK_TIMES)
@settings(max_examples=200)
def test_the_mean_lies_between_zero_and_the_longest(distribution):
    assert 0 < distribution.mean <= distribution.longest * (1 + 1e-12)
    assert distribution.longest <= CUT * MAX_SECONDS
