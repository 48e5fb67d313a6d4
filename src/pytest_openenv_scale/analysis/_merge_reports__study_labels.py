"""Names for what a study measured: the labels of its sweeps, and what tells those apart that would be the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.core.grammar import GrammarError, parse_target
from pytest_openenv_scale.core.run import Run
from pytest_openenv_scale.core.view import SweepView

from .text import collapse

FAMILIES = (
    "local-hypercorn",
    "local-uvicorn",
    "local-docker",
    "envoy-local",
    "hf-spaces",
    "slurm-single",
    "slurm-multi",
)
"""The labels targets have by themselves, in the order reports show them; others follow as they were measured."""

Words = tuple[str, ...]
"""What is appended to a label, an empty text where an attribute does not tell anything."""


@dataclass(frozen=True, slots=True)
class Source:
    """One sweep and the run it is of."""

    run: Run
    sweep: SweepView

    @property
    def label(self) -> str:
        """The label its run gave it."""
        return collapse(self.sweep.infrastructure)

    @property
    def thing(self) -> tuple[Any, ...]:
        """What was measured: two sweeps of equal things measured the same."""
        record = self.sweep.record
        return record.hardware, record.cores, record.target

    @property
    def places(self) -> frozenset[tuple[str, float | None]]:
        """Where in a table its curves stand."""
        return frozenset((curve.curve.mode, curve.curve.wait) for curve in self.sweep.curves)


def named(sweeps: Sequence[tuple[Run, SweepView]]) -> list[tuple[str, Run, SweepView]]:
    """Return sweeps with their names; what is of one name stands together, known infrastructures first."""
    sources = [Source(run, sweep) for run, sweep in sweeps]
    found = [pair for label, group in _by_label(sources).items() for pair in _named(label, group)]
    labels = list(dict.fromkeys(label for label, _ in found))
    order = sorted(labels, key=lambda label: _key(label, labels))
    found.sort(key=lambda pair: order.index(pair[0]))
    return [(label, source.run, source.sweep) for label, source in found]


def _key(label: str, labels: list[str]) -> tuple[int, list[tuple[int, str]]]:
    """Sort known infrastructures first, each with its variants in the order a person would put them."""
    family = next((at for at, name in enumerate(FAMILIES) if re.match(rf"{name}(?![a-z])", label)), None)
    if family is None:
        return len(FAMILIES) + labels.index(label), []
    parts = re.split(r"(\d+)", label)
    return family, [(int(part), "") if part.isdigit() else (0, part) for part in parts]


def _by_label(sources: Sequence[Source]) -> dict[str, list[Source]]:
    """Group sweeps by label; what had a longer one in a run with more targets takes that one everywhere."""
    found: dict[str, list[Source]] = {}
    labels: dict[tuple[Any, ...], set[str]] = {}
    for source in sources:
        labels.setdefault(source.thing, set()).add(source.label)
    for source in sources:
        longer = [label for label in labels[source.thing] if label.startswith(f"{source.label}-")]
        found.setdefault(max((source.label, *longer), key=len), []).append(source)
    return found


def _named(label: str, sources: Sequence[Source]) -> list[tuple[str, Source]]:
    """Give sweeps of one label what tells them apart."""
    things = list(dict.fromkeys(source.thing for source in sources))
    differences = _things_apart(things, [next(found for found in sources if found.thing == thing) for thing in things])
    named: list[tuple[str, Source]] = []
    for thing, difference in zip(things, differences, strict=True):
        group = [source for source in sources if source.thing == thing]
        for source, further in zip(group, _sweeps_apart(group), strict=True):
            words = ", ".join(word for word in (*difference, *further) if word)
            named.append((f"{label} ({words})" if words else label, source))
    return named


def _things_apart(things: Sequence[tuple[Any, ...]], examples: Sequence[Source]) -> list[Words]:
    """Return the fewest words that tell different things of one label apart."""
    records = [example.sweep.record for example in examples]
    words = [
        [record.hardware or "" for record in records],
        _target_differences([record.target for record in records]),
        ["" if record.cores is None else text_of.count_of(record.cores, "core") for record in records],
    ]
    return _fewest(words, lambda found: len(set(found)) == len(things))


def _sweeps_apart(sources: Sequence[Source]) -> list[Words]:
    """Return what tells sweeps of one thing apart that would stand in the same place of a table."""

    def unique(names: Sequence[Words]) -> bool:
        places = [(name, place) for name, source in zip(names, sources, strict=True) for place in source.places]
        return len(set(places)) == len(places)

    return _fewest(
        [_tests([source.sweep.test for source in sources]), _runs([source.run for source in sources])], unique
    )


def _fewest(words: Sequence[Sequence[str]], unique: Callable[[Sequence[Words]], bool]) -> list[Words]:
    """Return for each thing the words of the smallest choice of attributes that makes them unique, else numbers."""
    count = len(words[0])
    for size in range(len(words) + 1):
        for chosen in combinations(words, size):
            found = [tuple(column[at] for column in chosen) for at in range(count)]
            if unique(found):
                return found
    return [(*(column[at] for column in words), f"{at + 1}") for at in range(count)]


def _target_differences(targets: Sequence[str]) -> list[str]:
    """Return the options in which targets differ, or the whole target where it is not written as one."""
    try:
        specs = [parse_target(target) for target in targets]
    except GrammarError:
        return [collapse(target) for target in targets]
    shown = [{"": ",".join(spec.urls) or spec.argument or spec.name, **dict(spec.options)} for spec in specs]
    keys = {key: None for options in shown for key in options}
    differing = [key for key in keys if len({options.get(key) for options in shown}) > 1]
    return [
        collapse(", ".join(f"{key} {options[key]}".strip() for key in differing if key in options)) for options in shown
    ]


def _tests(tests: Sequence[str]) -> list[str]:
    """Return tests by the name of their function, or in full where that is the same."""
    short = [collapse(test.rpartition("::")[2].partition("[")[0]) for test in tests]
    return short if len(set(short)) == len(set(tests)) else [collapse(test) for test in tests]


def _runs(runs: Sequence[Run]) -> list[str]:
    """Return runs by the day they were made, more exactly where that is the same, or by id."""
    several = len({run.run_id for run in runs})
    for shape in ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S"):
        found = [f"{run.record.started_at:{shape}}" for run in runs]
        if len(set(found)) == several:
            return found
    return [run.run_id for run in runs]
