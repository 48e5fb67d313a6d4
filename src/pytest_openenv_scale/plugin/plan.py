"""What would be measured, printed instead of measured: cells or bounds, sessions and minutes (`--openenv-plan`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from pytest_openenv_scale.config.limits import Slo, slo_for_curve
from pytest_openenv_scale.config.plan import curve_batches
from pytest_openenv_scale.config.settings import Settings
from pytest_openenv_scale.config.timing import Timing
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.parsing import format_number
from pytest_openenv_scale.core.target_spec import TargetSpec, redact_target
from pytest_openenv_scale.engine.search import possible_courses
from pytest_openenv_scale.engine.source import search_of
from pytest_openenv_scale.reporting.content.searches import range_words

from .collection import FIXTURE, is_elsewhere
from .invocation import TargetParameter
from .marks import DECLARATION


@dataclass(frozen=True, slots=True)
class _CurvePlan:
    """One curve: what is asked of it, and the most sessions and minutes that takes where the server is a quick one.

    Of a steady state the sessions are estimated, too.
    """

    words: str
    sessions: int
    minutes: float
    steady: bool

    @classmethod
    def of_courses(cls, words: str, courses: Sequence[Sequence[int]], timing: Timing) -> _CurvePlan:
        """Return the plan of a curve that asks for the batches of one of these courses."""
        sessions, seconds = timing.most(courses)
        lasting = timing.arrival.seconds
        words = words if lasting is None else f"{format_number(lasting)} s each, {words}"
        return cls(words, sessions, seconds / 60, steady=timing.arrival.kind == "steady")

    def line(self, name: str) -> str:
        """Return the plan in one line."""
        cost = f"{formatting.count(self.sessions)} sessions, about {self.minutes:.1f} min"
        return f"  {name}: {self.words}; {_bound(steady=self.steady)} {cost}"


def _bound(*, steady: bool) -> str:
    return "about" if steady else "at most"


def plan_lines(items: list[pytest.Item], settings: Settings) -> list[str]:
    """Return a line per curve of every selected test on every target, and what all of it comes to."""
    lines: list[str] = []
    plans: list[_CurvePlan] = []
    elsewhere = 0
    for item in items:
        declared = item.stash.get(DECLARATION, None)
        if declared is None or FIXTURE not in getattr(item, "fixturenames", ()):
            continue
        if declared.problem is not None:
            lines += [item.nodeid, f"  {declared.problem}"]
            continue
        spec = settings.targets[_target_index(item)]
        lines.append(f"{item.nodeid} on {redact_target(spec)}")
        for name, plan in _curve_plans(declared.settings, declared.slos, spec):
            lines.append(plan.line(name))
            plans.append(plan)
            elsewhere += plan.sessions if is_elsewhere(spec) else 0
    sessions, minutes = sum(plan.sessions for plan in plans), sum(plan.minutes for plan in plans)
    lines.append(
        f"{formatting.count_of(len(plans), 'curve')}, {_bound(steady=any(plan.steady for plan in plans))}"
        f" {formatting.count(sessions)} sessions, about {minutes:.1f} min where servers are quick; nothing was started"
    )
    if settings.budget is not None:
        lines.append(f"measuring ends after {format_number(settings.budget)} s (--openenv-budget)")
    if elsewhere > settings.max_sessions:
        lines.append(
            f"{formatting.count(elsewhere)} sessions on other machines are more than the"
            f" {formatting.count(settings.max_sessions)} that --openenv-max-sessions allows: measuring ends there"
        )
    return lines


def _target_index(item: Any) -> int:
    """Return which of several targets a test runs on."""
    parameters: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    parameter: TargetParameter | None = parameters.get("openenv_target")
    return parameter.index if parameter else 0


def _curve_plans(settings: Settings, slos: tuple[Slo, ...], spec: TargetSpec) -> Iterator[tuple[str, _CurvePlan]]:
    think_s = 0.0 if settings.think is None else settings.think.mean
    for mode in settings.modes:
        for wait in settings.waits:
            slo = slo_for_curve(slos, wait, mode)
            timing = Timing(settings.steps, wait, think_s, settings.arrival)
            name = f"{mode} · wait {format_number(wait)} s"
            if settings.search:
                search = search_of(slo, settings, on_loopback=not is_elsewhere(spec))
                words = f"search {range_words(search)}, {formatting.count_of(search.repetitions, 'repetition')}"
                yield name, _CurvePlan.of_courses(words, possible_courses(search), timing)
                continue
            batches = curve_batches(settings.batches, slo)
            repetitions = settings.repetitions
            words = (
                f"batch {formatting.list_of_counts(list(batches))}, {formatting.count_of(repetitions, 'repetition')}"
            )
            yield name, _CurvePlan.of_courses(words, [batches * repetitions], timing)
