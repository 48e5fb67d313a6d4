"""How a test's arrival, ramp, time and batches are put together, whichever of them is written where."""

from __future__ import annotations

from dataclasses import replace

import pytest
from configured import Resolve, resolver
from hypothesis import given
from hypothesis import strategies as st

from goldens import Golden
from measuring import settings_of
from pytest_openenv_scale.config.arriving import check_written_together, with_whole_arrival
from pytest_openenv_scale.config.search import NO_SEARCH, SearchRange
from pytest_openenv_scale.config.settings import SOURCES, Settings
from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.parsing import Arrival, parse_arrival
from pytest_openenv_scale.plugin.marks import scaling


@pytest.fixture
def settle(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Resolve:
    return resolver(pytester, monkeypatch)


def settle_test(settle: Resolve, command_line: str = "", ini: str = "", **mark) -> Settings:
    """Return the settings of a test with these options, ini keys and arguments of its mark."""
    options = [f"--openenv-{option}" for option in command_line.split()]
    keys = "\n".join(f"openenv_{key}" for key in ini.split())
    return with_whole_arrival(settle(*options, ini=keys).with_mark(scaling(**mark)))


def test_without_a_ramp_or_a_time_nothing_changes(settle):
    settings = settle("--openenv-arrival=rate=5", "--openenv-batches=4").with_mark(None)
    assert with_whole_arrival(settings) == settings


def test_a_steady_state_has_its_ramp(settle):
    settings = settle_test(settle, arrival="steady=60s", ramp="10s", batches=8)
    assert settings.arrival == Arrival("steady", None, 60.0, 10.0)
    assert settings.batches == (8,)


@pytest.mark.parametrize(
    ("rate", "time", "sessions"), [("rate=50", "60s", 3000), ("rate=0.5", "5s", 2), ("rate=0.1", "1s", 1)]
)
def test_what_arrives_at_a_rate_in_a_time_is_the_batch(settle, rate, time, sessions):
    settings = settle_test(settle, arrival=rate, for_=time)
    assert settings.batches == settings.axis("batches") == (sessions,)
    assert settings.arrival.seconds == pytest.approx(float(time.rstrip("s")))


@pytest.mark.parametrize(
    ("command_line", "ini", "mark", "arrival", "batches"),
    [
        # A nearer arrival, batch or search takes away what it does not go with.
        ("arrival=hold", "", {"arrival": "steady=60s", "ramp": 5}, "hold", None),
        ("arrival=hold", "", {"arrival": "rate=2", "for_": 60}, "hold", None),
        ("batches=8", "", {"arrival": "rate=2", "for_": 60}, "rate=2", (8,)),
        ("batches=8", "", {"arrival": "rate=2", "for_": 60, "ramp": 5}, "rate=2", (8,)),
        ("search=auto", "", {"arrival": "rate=2", "for_": 60}, "rate=2", None),
        ("", "for=60s", {"arrival": "rate=2", "batches": 8}, "rate=2", (8,)),
        # A nearer time takes the batches and the search away.
        ("for=30s", "", {"arrival": "rate=2", "batches": 8}, "rate=2,for=30", (60,)),
        ("", "batches=8 search=auto", {"arrival": "rate=2", "for_": 30}, "rate=2,for=30", (60,)),
        ("search=off", "", {"arrival": "rate=2", "for_": 30}, "rate=2,for=30", (60,)),
        # A nearer ramp or time changes that of the mark, and 0 takes a ramp away.
        ("for=10s", "", {"arrival": "rate=2", "for_": 60, "ramp": 5}, "rate=2,for=10,ramp=5", (20,)),
        ("ramp=1s", "", {"arrival": "steady=60s", "ramp": 5}, "steady=60,ramp=1", None),
        ("ramp=0", "", {"arrival": "steady=60s", "ramp": 5}, "steady=60", None),
        ("ramp=0", "", {}, "hold", None),
        ("arrival=steady=20s", "", {"arrival": "steady=60s", "ramp": 5}, "steady=20,ramp=5", None),
        # What ini says is for the tests that it fits.
        ("", "ramp=5s", {"arrival": "steady=60s"}, "steady=60,ramp=5", None),
        ("", "ramp=5s for=60s", {}, "hold", None),
        ("", "ramp=5s for=60s", {"arrival": "burst"}, "burst", None),
        ("", "for=60s", {"arrival": "rate=2"}, "rate=2,for=60", (120,)),
    ],
)
def test_what_is_written_nearer_decides(settle, command_line, ini, mark, arrival, batches):
    settings = settle_test(settle, command_line, ini, **mark)
    assert str(settings.arrival) == arrival
    if batches is not None:
        assert settings.batches == batches
    assert bool(settings.search) == ("search=auto" in command_line)


@pytest.mark.parametrize(
    ("command_line", "ini", "mark"),
    [
        ("", "", {"ramp": "10s"}),
        ("", "", {"arrival": "burst", "ramp": "10s"}),
        ("", "", {"arrival": "rate=5", "ramp": "10s"}),
        ("ramp=10s", "", {"arrival": "hold"}),
        ("", "ramp=10s arrival=burst", {}),
        ("", "", {"arrival": "steady=10s", "ramp": "10s"}),
        ("arrival=steady=5s", "", {"arrival": "steady=60s", "ramp": "10s"}),
        ("ramp=2m", "", {"arrival": "rate=5", "for_": "60s"}),
        ("", "", {"for_": "60s"}),
        ("", "", {"arrival": "steady=60s", "for_": "60s"}),
        ("for=60s", "", {"arrival": "steady=60s"}),
        ("", "", {"arrival": "rate=50", "for_": "60s", "batches": 8}),
        ("batches=8 for=60s", "", {"arrival": "rate=50"}),
        ("", "for=60s arrival=rate=0.5 batches=8", {}),
        ("", "", {"arrival": "rate=50", "for_": "60s", "search": True}),
        ("", "", {"arrival": "rate=1000000", "for_": "1h"}),
    ],
    ids=lambda value: " ".join(f"{key}={text}" for key, text in value.items()) if isinstance(value, dict) else value,
)
def test_what_does_not_fit_is_one_line_that_says_where_it_is_written(golden: Golden, settle, command_line, ini, mark):
    with pytest.raises(GrammarError) as caught:
        settle_test(settle, command_line, ini, **mark)
    assert "\n" not in str(caught.value)
    golden(caught.value)


@pytest.mark.parametrize(
    "command_line",
    ["arrival=steady=5s ramp=5s", "arrival=hold ramp=5s", "arrival=hold for=5s", "arrival=rate=5 for=5s batches=8"],
)
def test_what_no_mark_makes_fit_is_refused_before_any_test(settle, command_line):
    settings = settle(*(f"--openenv-{option}" for option in command_line.split()))
    with pytest.raises(GrammarError):
        check_written_together(settings)
    for mark in ({}, {"arrival": "rate=5", "for_": 60, "ramp": 1}, {"arrival": "steady=60s", "batches": 4}):
        with pytest.raises(GrammarError):
            with_whole_arrival(settings.with_mark(scaling(**mark)))


@pytest.mark.parametrize(
    ("command_line", "ini", "mark"),
    [
        ("ramp=5s", "", {"arrival": "steady=60s"}),
        ("for=5s", "", {"arrival": "rate=5"}),
        ("arrival=steady=5s", "ramp=5s", {"ramp": 1}),
        ("arrival=rate=1000000", "for=1h", {"for_": 1}),
    ],
)
def test_what_a_mark_may_make_fit_is_not_refused_before(settle, command_line, ini, mark):
    check_written_together(
        settle(*(f"--openenv-{option}" for option in command_line.split()), ini=f"openenv_{ini}" if ini else "")
    )
    settle_test(settle, command_line, ini, **mark)


ARRIVALS = st.sampled_from([parse_arrival(text) for text in ("hold", "burst", "rate=2", "steady=60")])
WHERE = st.fixed_dictionaries(
    {name: st.sampled_from(SOURCES) for name in ("arrival", "ramp", "for", "batches", "search")}
)


@given(
    arrival=ARRIVALS,
    ramp=st.sampled_from([None, 0.0, 5.0, 90.0]),
    arriving=st.sampled_from([None, 0.1, 30.0]),
    search=st.booleans(),
    sources=WHERE,
)
def test_wherever_anything_is_written_the_whole_fits_or_is_refused(arrival, ramp, arriving, search, sources):
    written = replace(
        settings_of([8], ramp=ramp, for_=arriving),
        arrival=arrival,
        search=SearchRange() if search else NO_SEARCH,
        sources=sources,
    )
    try:
        whole = with_whole_arrival(written)
    except GrammarError as error:
        place = str(error).partition(": ")[0]
        assert place in ("--openenv-for", "--openenv-ramp", "openenv_for", "openenv_ramp", "mark scaling")
        return
    assert parse_arrival(str(whole.arrival)) == whole.arrival
    assert (whole.arrival.kind, whole.arrival.rate) == (arrival.kind, arrival.rate)
    assert whole.arrival.ramp in (0.0, ramp)
    if whole.arrival.rate and whole.arrival.seconds:
        assert (whole.batches, bool(whole.search)) == ((max(round(2 * arriving), 1),), False)
    else:
        assert (whole.batches, whole.search) == (written.batches, written.search)


# Until the episode is done


@pytest.mark.parametrize(
    ("command_line", "ini", "mark", "steps", "until_done"),
    [
        ("", "", {"steps": "until_done=200"}, 200, True),
        ("", "", {"steps": "until_done"}, 1000, True),
        ("until-done", "", {}, 1000, True),
        ("until-done", "", {"steps": 20}, 20, True),
        ("until-done steps=5", "", {"steps": 20}, 5, True),
        ("steps=5", "", {"steps": "until_done=200"}, 5, False),
        ("steps=until_done=9", "", {"steps": 20}, 9, True),
        ("", "steps=until_done=200", {}, 200, True),
        ("", "steps=until_done=200", {"steps": 5}, 5, False),
        ("", "until_done=true", {"steps": 5}, 5, True),
        ("", "until_done=true steps=until_done=200", {"steps": 5}, 5, True),
        ("", "until_done=false steps=until_done=200", {}, 200, True),
        ("", "until_done=false steps=until_done=200", {"steps": 5}, 5, False),
    ],
)
def test_steps_and_the_flag_say_the_same_thing(settle, command_line, ini, mark, steps, until_done):
    settings = settle_test(settle, command_line, ini, **mark)
    assert (settings.steps, settings.until_done) == (steps, until_done)
