"""Samples of a server over a repetition of any length, and how many failures decide one."""

from __future__ import annotations

from itertools import pairwise

import pytest

from pytest_openenv_scale.config.limits import Slo, make_limit
from pytest_openenv_scale.core.endpoint import ServerSample
from pytest_openenv_scale.core.parsing import parse_arrival
from pytest_openenv_scale.engine.server_watch import ServerWatch
from pytest_openenv_scale.engine.source import most_failures
from pytest_openenv_scale.results.cell import MAX_SAMPLES


def watched(*samples: ServerSample | None) -> ServerWatch:
    watch = ServerWatch()
    for sample in samples:
        watch.add(sample)
    return watch


def test_first_last_and_the_largest_of_each_figure_are_kept():
    first, middle, last = (
        ServerSample(1.0, rss_bytes=5, threads=2),
        ServerSample(2.0, rss_bytes=9),
        ServerSample(3.0, rss_bytes=7, threads=1),
    )
    summary = watched(first, middle, last).summary
    assert (summary.first, summary.last) == (first, last)
    assert summary.peak == ServerSample(3.0, rss_bytes=9, threads=2)


def test_a_server_nobody_can_look_at_has_no_samples():
    watch = watched(None, None)
    assert watch.since(0.0) == ()
    assert watch.summary.peak is None


@pytest.mark.parametrize("count", [1, MAX_SAMPLES, MAX_SAMPLES + 1, 20 * MAX_SAMPLES + 7])
def test_samples_of_any_number_are_kept_evenly(count: int):
    kept = watched(*(ServerSample(float(number)) for number in range(count))).since(0.0)
    assert len(kept) <= MAX_SAMPLES
    assert kept[0].at_s == 0.0
    distances = {after.at_s - before.at_s for before, after in pairwise(kept)}
    assert len(distances) <= 1
    assert count <= MAX_SAMPLES or len(kept) > MAX_SAMPLES / 4
    assert count - kept[-1].at_s <= max(distances, default=1.0)


def test_a_rising_sample_holds_the_most_of_the_first_with_as_many_open():
    watch = ServerWatch()
    for count, size in ((0, 5), (None, 99), (8, 10), (4, 90), (8, 12), *[(8, 11)] * 6, (8, 50), (9, 7), (9, 6)):
        watch.add(ServerSample(1.0, rss_bytes=size), open_sessions=count)
    rising = [(sample.open_sessions, sample.rss_bytes) for sample in watch.summary.rising]
    assert rising == [(0, 5), (8, 12), (9, 7)]


def test_rising_samples_of_a_long_ramp_are_thinned_out():
    watch = ServerWatch()
    for number in range(10_000):
        watch.add(ServerSample(1.0), open_sessions=number)
    rising = watch.summary.rising
    assert (len(rising), rising[0].open_sessions, rising[-1].open_sessions) == (32, 0, 9999)


@pytest.mark.parametrize(
    ("batch", "share", "most"), [(100, 0.95, 5), (100, 1.0, 0), (10, 0.95, 0), (1000, 0.999, 1), (3, 2 / 3, 1)]
)
def test_so_many_may_fail_while_success_can_suffice(batch: int, share: float, most: int):
    slo = Slo((make_limit("success", share),))
    limit = slo.limits[0]
    assert most_failures(batch, slo, parse_arrival("burst")) == most
    assert limit.holds((batch - most) / batch + 1e-12)
    assert not limit.holds((batch - most - 1) / batch)


@pytest.mark.parametrize("arrival", ["hold", "steady=60", "rate=5,for=60"])
def test_what_is_to_be_held_or_to_last_plays_to_its_end(arrival: str):
    assert most_failures(100, Slo(), parse_arrival(arrival)) is None


def test_without_a_limit_the_one_that_holds_by_default_decides():
    assert most_failures(100, Slo(), parse_arrival("rate=5")) == 5


def test_samples_are_told_by_the_time_since_a_moment():
    kept = watched(ServerSample(99.5, rss_bytes=1), ServerSample(101.0, rss_bytes=2)).since(100.0)
    assert kept == (ServerSample(-0.5, rss_bytes=1), ServerSample(1.0, rss_bytes=2))
