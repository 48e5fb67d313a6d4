"""What happens rarely, and would without any other session, fails no sound server; and hides no leak."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest

from checking_subjects import make_subject
from pytest_openenv_scale.checks.isolation import concurrent as concurrent_module
from pytest_openenv_scale.checks.isolation import reference as reference_module
from pytest_openenv_scale.checks.isolation.concurrent import interleaved, under_load
from pytest_openenv_scale.checks.isolation.reference import learn_reference
from pytest_openenv_scale.checks.isolation.sequential import reset_twice, sequential
from pytest_openenv_scale.checks.subject import Subject
from pytest_openenv_scale.config.workload import Workload
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult
from rare_events import LEAKING, SOUND, leaking, sound
from toy_environment import ACTION, serving

pytestmark = pytest.mark.usefixtures("quick_waits")

MET, MISSED = CheckOutcome.MET, CheckOutcome.MISSED

RATES = (0.002, 0.01, 0.05)


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_module, "_PAUSE_S", 0.01)
    monkeypatch.setattr(concurrent_module, "_BUSY_S", 0.1)
    monkeypatch.setattr(concurrent_module, "_LONGEST_PAUSE_S", 0.02)


def asked_of(url: str) -> Subject:
    defaults: dict[str, Any] = {"workload": Workload(({},), source="/schema"), "schema": {"action": ACTION}}
    return make_subject(url, **defaults, wait_s=None, timeout_s=10.0, max_sessions=16)


async def after_a_quiet_start(kind: Any, rate: float) -> CheckResult:
    """The result under load where nothing happens before the lone sessions were played."""
    async with serving(kind) as url:
        subject = asked_of(url)
        await subject.learn(learn_reference)
        kind.rate = rate
        return await under_load(subject)


@pytest.mark.usefixtures("in_a_hurry")
@pytest.mark.parametrize(
    ("kind", "explanation"),
    [
        ("seed", "show the same alone"),
        ("actions", "show the same alone"),
        ("uncounted", "show the same alone"),
        ("short", "show the same alone"),
        ("chance", "left out"),
        ("no seed", "left out"),
    ],
)
async def test_what_happens_alone_too_is_no_leak(kind: str, explanation: str) -> None:
    result = await after_a_quiet_start(sound(kind, 0.0), 0.5)
    assert result.outcome is MET, result
    assert any(explanation in line for line in result.details), result


@pytest.mark.usefixtures("in_a_hurry")
@pytest.mark.parametrize("kind", LEAKING)
async def test_a_leak_is_found_beside_what_happens_alone_too(kind: str) -> None:
    result = await after_a_quiet_start(leaking(kind, 0.0), 0.2)
    assert result.outcome is MISSED, result


@pytest.mark.usefixtures("in_a_hurry")
async def test_one_odd_episode_is_told_and_fails_nothing() -> None:
    sessions = itertools.count(1)

    class Once(SOUND["seed"]):
        def happens(self) -> bool:
            return self.rate > 0 and self.seed is not None and next(sessions) == 12

    result = await after_a_quiet_start(Once, 1.0)
    assert result.outcome is MET, result
    assert "not decided: 1 of" in result.headline
    assert result.figures["episodes_differing"] == 1


@pytest.mark.usefixtures("in_a_hurry")
@pytest.mark.parametrize("check", [sequential, reset_twice])
async def test_a_step_that_does_not_count_is_nothing_left_over(check: Any) -> None:
    kind = sound("uncounted", 0.0)
    async with serving(kind) as url:
        subject = asked_of(url)
        await subject.learn(learn_reference)
        kind.rate = 1.0
        result = await check(subject)
    assert result.outcome is MET, result


async def outcome_under_load(make: Any) -> str:
    async with serving(make) as url:
        result = await under_load(asked_of(url))
    return f"{result.outcome}: {result.headline}"


@pytest.mark.matrix
@pytest.mark.parametrize("kind", SOUND)
@pytest.mark.parametrize("rate", RATES)
async def test_a_sound_server_fails_in_none_of_many_runs(kind: str, rate: float) -> None:
    """Six kinds at three rates, six times each: over a hundred runs."""
    outcomes = Counter([await outcome_under_load(sound(kind, rate)) for _ in range(6)])
    assert all(outcome.startswith(MET) for outcome in outcomes), outcomes


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("kind", "rate"),
    # A bear that all see has to come at all.
    [(kind, rate) for kind in LEAKING for rate in RATES if kind != "bear" or rate == max(RATES)],
)
async def test_every_leak_is_found_under_load(kind: str, rate: float) -> None:
    result = await after_a_quiet_start(leaking(kind, 0.0), rate)
    assert result.outcome is MISSED, result


@pytest.mark.matrix
@pytest.mark.parametrize("kind", SOUND)
@pytest.mark.parametrize("check", [interleaved, sequential, reset_twice])
async def test_the_other_questions_fail_no_sound_server_either(kind: str, check: Any) -> None:
    for rate in RATES:
        async with serving(sound(kind, rate)) as url:
            result = await check(asked_of(url))
        assert result.outcome is MET, result
