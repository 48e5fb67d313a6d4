"""A study: one run or several, read together, each curve under a name for what was measured."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.loads import arrival_text, think_text
from pytest_openenv_scale.core.target_spec import parse_target
from pytest_openenv_scale.core.text import on_one_line
from pytest_openenv_scale.metrics.certainty import CONFIDENCE, Interval, over_repetitions, success_interval
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.outcome import CellVerdict, CurveVerdict, Probe
from pytest_openenv_scale.verdict.sweep import CurveView, SweepView

from .run import Run

__all__ = [
    "FAMILIES",
    "BatchPoint",
    "Study",
    "StudyCurve",
    "batch_points",
    "join_runs",
    "probe_points",
    "smallest_max_batch",
    "study_of",
]


@dataclass(frozen=True, slots=True)
class BatchPoint:
    """One batch of a curve over its repetitions; every figure is the worst of them, None where there is none."""

    batch: int
    repetitions: tuple[CellSummary, ...]
    verdict: CellVerdict | None

    @property
    def passed(self) -> bool | None:
        """Whether the batch passed in every repetition; None where that cannot be said."""
        return self.verdict.passed if self.verdict else None

    @property
    def success(self) -> float | None:
        """The lowest share of sessions that succeeded, as a fraction."""
        return _least(summary.success_rate for summary in self.repetitions)

    @property
    def requests_per_second(self) -> float | None:
        """The lowest throughput: successful sessions per second."""
        return _least(summary.requests_per_second for summary in self.repetitions)

    @property
    def effective_concurrency(self) -> float | None:
        """The lowest effective concurrency: seconds waited by successful sessions per second of the cell."""
        return _least(summary.effective_concurrency for summary in self.repetitions)

    @property
    def peak_concurrency(self) -> int | None:
        """The fewest sessions that were open at once at the best moment of a repetition."""
        return _least_count(summary.peak_concurrency for summary in self.repetitions)

    @property
    def open_least(self) -> int | None:
        """The fewest sessions that were open at once while a steady state was judged."""
        return _least_count(summary.open_least for summary in self.repetitions)

    @property
    def judged(self) -> int:
        """The fewest sessions of a repetition that its figures count, those that failed included."""
        return min((summary.successful + summary.failed for summary in self.repetitions), default=0)

    @property
    def worst(self) -> CellSummary:
        """The repetition with the lowest share of sessions that succeeded; of equal ones the first."""
        return min(
            self.repetitions, key=lambda rep: (rep.success_rate is None, rep.success_rate or 0.0, rep.repetition)
        )

    @property
    def hosts(self) -> int | None:
        """The fewest hosts that sessions of a repetition ran on."""
        return _least_count(summary.hosts for summary in self.repetitions)

    @property
    def samples(self) -> int:
        """How many successful sessions the smallest repetition had: what a percentile of it rests on."""
        return min((summary.successful for summary in self.repetitions), default=0)

    @property
    def rss_bytes(self) -> int | None:
        """The most memory the server's processes held, in bytes."""
        peaks = (summary.rss_bytes for summary in self.repetitions)
        return max((peak for peak in peaks if peak is not None), default=None)

    @property
    def cpu_per_step(self) -> float | None:
        """The most CPU time the server used by its steps, in seconds, what it does at rest included."""
        shares = (summary.cpu_per_step for summary in self.repetitions)
        return max((share for share in shares if share is not None), default=None)

    @property
    def seen_late(self) -> bool:
        """Whether HTTP answers were seen late in any repetition, which is in its latencies and its throughput."""
        return any(summary.seen_late for summary in self.repetitions)

    def latency(self, phase: str, statistic: str = "p99") -> float | None:
        """Return a statistic of a phase in seconds, the highest of the repetitions."""
        phases = [summary.phase(phase) for summary in self.repetitions]
        return max((float(getattr(stats, statistic)) for stats in phases if stats), default=None)

    def success_interval(self) -> Interval | None:
        """Return where the share of sessions that succeed lies: over repetitions where there are some."""
        rates = [summary.success_rate for summary in self.repetitions if summary.success_rate is not None]
        if len(rates) != 1:
            return over_repetitions(rates) if rates else None
        (summary,) = (summary for summary in self.repetitions if summary.success_rate is not None)
        judged = summary.successful + summary.failed
        return Interval(*success_interval(summary.successful, judged), CONFIDENCE, "sessions", judged)

    def latency_interval(self, phase: str, statistic: str) -> Interval | None:
        """Return where a percentile of a phase lies, in seconds: over repetitions where there are some."""
        phases = [stats for summary in self.repetitions if (stats := summary.phase(phase))]
        if len(phases) != 1:
            return over_repetitions([float(getattr(stats, statistic)) for stats in phases]) if phases else None
        (stats,) = phases
        low, high = stats.intervals.get(statistic, (None, None))
        return Interval(low, high, CONFIDENCE, "steps" if phase == "step" else "sessions", stats.count)


def batch_points(view: CurveView) -> tuple[BatchPoint, ...]:
    """Return a point per measured batch of a curve, the smallest first."""
    measured: dict[int, list[CellSummary]] = {}
    for summary in sorted(view.summaries, key=lambda summary: (summary.batch, summary.repetition)):
        measured.setdefault(summary.batch, []).append(summary)
    return tuple(BatchPoint(batch, tuple(cells), view.verdict.cell(batch)) for batch, cells in measured.items())


def probe_points(view: CurveView) -> tuple[BatchPoint, ...]:
    """Return a point per repetition that a search asked for, in its order; of a grid one per batch."""
    search = view.verdict.search
    if search is None:
        return batch_points(view)
    measured = {(summary.batch, summary.repetition): summary for summary in view.summaries}
    return tuple(
        BatchPoint(probe.batch, (measured[probe.batch, probe.repetition],), _verdict_alone(view, probe))
        for probe in search.probes
    )


def _verdict_alone(view: CurveView, probe: Probe) -> CellVerdict | None:
    """Return the verdict on one repetition of a batch."""
    cell = view.verdict.cell(probe.batch)
    if cell is None:
        return None
    breaches = tuple(breach for breach in cell.breaches if breach.repetition == probe.repetition)
    reasons = tuple(reason for reason in cell.reasons if reason.repetition in (None, probe.repetition))
    return CellVerdict(probe.batch, probe.passed, breaches, reasons, (probe.passed,))


def _least_count(values: Iterable[int | None]) -> int | None:
    return min((value for value in values if value is not None), default=None)


def _least(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


@dataclass(frozen=True, slots=True)
class StudyCurve:
    """One curve and where it comes from.

    `infrastructure` names what was measured: within a study no two curves share infrastructure, mode and wait.
    """

    run: Run
    sweep: SweepView
    curve: CurveView
    infrastructure: str

    @property
    def test(self) -> str:
        """The node id of the test that measured it."""
        return self.sweep.test

    @property
    def mode(self) -> str:
        """The protocol: ws or http."""
        return self.curve.curve.mode

    @property
    def wait(self) -> float | None:
        """Seconds asked for in each step; None where waits mean nothing."""
        return self.curve.curve.wait

    @property
    def cores(self) -> int | None:
        """The server's cores."""
        return self.sweep.record.cores

    @property
    def hardware(self) -> str | None:
        """The server's hardware as its target names it."""
        return self.sweep.record.hardware

    @property
    def startup_s(self) -> float | None:
        """Seconds from the start of the server to its first answered session."""
        return self.sweep.record.startup_s

    @property
    def verdict(self) -> CurveVerdict:
        """The verdict on the curve, max batch included."""
        return self.curve.verdict

    @property
    def points(self) -> tuple[BatchPoint, ...]:
        """What was measured, a point per batch, the smallest first."""
        return batch_points(self.curve)

    def point(self, batch: int | None) -> BatchPoint | None:
        """Return the point of one batch; None where it was not measured."""
        return next((point for point in self.points if point.batch == batch), None)

    @property
    def best(self) -> BatchPoint | None:
        """The point of the max batch; None where there is no max batch."""
        return self.point(self.verdict.max_batch)

    @property
    def bracket(self) -> tuple[BatchPoint, ...]:
        """The point of the max batch and the smallest that does not pass, those of them that there are."""
        beyond = next((point for point in self.points if not point.passed), None)
        return tuple(point for point in (self.best, beyond) if point is not None)


@dataclass(frozen=True, slots=True)
class Study:
    """Runs in the order they were made and all of their curves, by infrastructure, mode and wait."""

    runs: tuple[Run, ...]
    curves: tuple[StudyCurve, ...]

    @property
    def infrastructures(self) -> tuple[str, ...]:
        """What was measured, in the order reports show it."""
        return tuple(dict.fromkeys(curve.infrastructure for curve in self.curves))

    @property
    def modes(self) -> tuple[str, ...]:
        """The protocols that were measured, ws first."""
        modes = {curve.mode for curve in self.curves}
        return tuple(sorted(modes, key=lambda mode: (mode != "ws", mode)))

    @property
    def waits(self) -> tuple[float | None, ...]:
        """The waits that were measured in seconds, ascending; None, for no wait at all, comes first."""
        return tuple(sorted({curve.wait for curve in self.curves}, key=_wait_key))

    @property
    def sweeps(self) -> tuple[SweepView, ...]:
        """The sweeps of all runs."""
        return tuple(view for run in self.runs for view in run.sweeps)

    def curves_of(self, infrastructure: str, mode: str | None = None) -> tuple[StudyCurve, ...]:
        """Return the curves of one infrastructure, all or those of one mode, by wait."""
        curves = (curve for curve in self.curves if curve.infrastructure == infrastructure)
        return tuple(curve for curve in curves if mode in (None, curve.mode))

    def curve(self, infrastructure: str, mode: str, wait: float | None) -> StudyCurve | None:
        """Return a curve; None where it was not measured."""
        return next((curve for curve in self.curves_of(infrastructure, mode) if curve.wait == wait), None)


def smallest_max_batch(curves: Iterable[StudyCurve]) -> StudyCurve:
    """Return the curve that holds the least, of equal ones the first; one without max batch holds nothing for sure."""
    return min(curves, key=lambda curve: curve.verdict.max_batch or 0)


def study_of(source: Run | Study) -> Study:
    """Return a study as it is, and a run as a study of one."""
    return source if isinstance(source, Study) else join_runs([source])


def join_runs(runs: Sequence[Run]) -> Study:
    """Read runs together; a run that is given twice counts once.

    What carries one label but differs in hardware, cores or options of its target gets that appended; so does
    what was measured with several arrivals, by several tests, or in several runs, at the same mode and wait:
    "hf-spaces (cpu-basic)".
    """
    runs_by_id = {run.run_id: run for run in sorted(runs, key=lambda run: (run.record.started_at, run.run_id))}
    sweeps = name_sweeps([(run, sweep) for run in runs_by_id.values() for sweep in run.sweeps])
    order = {label: at for at, label in enumerate(dict.fromkeys(label for label, _, _ in sweeps))}
    curves = [StudyCurve(run, sweep, curve, label) for label, run, sweep in sweeps for curve in sweep.curves]
    curves.sort(key=lambda curve: (order[curve.infrastructure], curve.mode != "ws", curve.mode, _wait_key(curve.wait)))
    return Study(tuple(runs_by_id.values()), tuple(curves))


def _wait_key(wait: float | None) -> float:
    return -1.0 if wait is None else wait


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
"""What is appended to a label, an empty text where an attribute is not known."""


@dataclass(frozen=True, slots=True)
class SweepSource:
    """One sweep and the run it is of."""

    run: Run
    sweep: SweepView

    @property
    def label(self) -> str:
        """The label its run gave it."""
        return on_one_line(self.sweep.infrastructure)

    @property
    def setup(self) -> tuple[Any, ...]:
        """Hardware, cores and target: sweeps of equal setups measured the same thing."""
        record = self.sweep.record
        return record.hardware, record.cores, record.target

    @property
    def loads(self) -> frozenset[tuple[str, float | None]]:
        """The mode and wait of each of its curves, which is where they stand in a table."""
        return frozenset((curve.curve.mode, curve.curve.wait) for curve in self.sweep.curves)


def name_sweeps(sweeps: Sequence[tuple[Run, SweepView]]) -> list[tuple[str, Run, SweepView]]:
    """Return sweeps with the names of what they measured, grouped by name, known infrastructures first."""
    sources = [SweepSource(run, sweep) for run, sweep in sweeps]
    named_sources = [pair for label, group in _group_by_label(sources).items() for pair in _name_group(label, group)]
    labels = list(dict.fromkeys(label for label, _ in named_sources))
    order = sorted(labels, key=lambda label: _infrastructure_key(label, labels))
    named_sources.sort(key=lambda pair: order.index(pair[0]))
    return [(label, source.run, source.sweep) for label, source in named_sources]


def _infrastructure_key(label: str, labels: list[str]) -> tuple[int, list[tuple[int, str]]]:
    """Sort known infrastructures first, each with its variants in the order a person would put them."""
    family = next((at for at, name in enumerate(FAMILIES) if re.match(rf"{name}(?![a-z])", label)), None)
    if family is None:
        return len(FAMILIES) + labels.index(label), []
    parts = re.split(r"(\d+)", label)
    return family, [(int(part), "") if part.isdigit() else (0, part) for part in parts]


def _group_by_label(sources: Sequence[SweepSource]) -> dict[str, list[SweepSource]]:
    """Group sweeps by label; a setup that has a longer label in another run is known by that one everywhere."""
    groups: dict[str, list[SweepSource]] = {}
    labels: dict[tuple[Any, ...], set[str]] = {}
    for source in sources:
        labels.setdefault(source.setup, set()).add(source.label)
    for source in sources:
        longer = [label for label in labels[source.setup] if label.startswith(f"{source.label}-")]
        groups.setdefault(max((source.label, *longer), key=len), []).append(source)
    return groups


def _name_group(label: str, sources: Sequence[SweepSource]) -> list[tuple[str, SweepSource]]:
    """Return the sweeps of one label with names that tell them apart: "label (words)"."""
    setups = list(dict.fromkeys(source.setup for source in sources))
    differences = _setup_words(
        setups, [next(example for example in sources if example.setup == setup) for setup in setups]
    )
    named_sources: list[tuple[str, SweepSource]] = []
    for setup, setup_words in zip(setups, differences, strict=True):
        group = [source for source in sources if source.setup == setup]
        for source, sweep_words in zip(group, _sweep_words(group), strict=True):
            words = ", ".join(word for word in (*setup_words, *sweep_words) if word)
            named_sources.append((f"{label} ({words})" if words else label, source))
    return named_sources


def _setup_words(setups: Sequence[tuple[Any, ...]], examples: Sequence[SweepSource]) -> list[Words]:
    """Return the fewest words that tell different setups of one label apart."""
    records = [example.sweep.record for example in examples]
    words = [
        [record.hardware or "" for record in records],
        _target_differences([record.target for record in records]),
        ["" if record.cores is None else formatting.count_of(record.cores, "core") for record in records],
    ]
    return _fewest_words(words, lambda names: len(set(names)) == len(setups))


def _sweep_words(sources: Sequence[SweepSource]) -> list[Words]:
    """Return the words that tell sweeps of one setup apart which would stand in the same place of a table."""

    def unique(names: Sequence[Words]) -> bool:
        loads = [(name, load) for name, source in zip(names, sources, strict=True) for load in source.loads]
        return len(set(loads)) == len(loads)

    words = [
        _arrival_names(sources),
        _test_names([source.sweep.test for source in sources]),
        _run_names([source.run for source in sources]),
    ]
    return _fewest_words(words, unique)


def _fewest_words(words: Sequence[Sequence[str]], unique: Callable[[Sequence[Words]], bool]) -> list[Words]:
    """Return per item the words of the fewest attributes that tell all items apart, else all words and a number."""
    count = len(words[0])
    for size in range(len(words) + 1):
        for chosen in combinations(words, size):
            choice = [tuple(column[at] for column in chosen) for at in range(count)]
            if unique(choice):
                return choice
    return [(*(column[at] for column in words), f"{at + 1}") for at in range(count)]


def _target_differences(targets: Sequence[str]) -> list[str]:
    """Return the options in which targets differ, or the whole target where it is not written as one."""
    try:
        specs = [parse_target(target) for target in targets]
    except GrammarError:
        return [on_one_line(target) for target in targets]
    options_by_target = [
        {"": ",".join(spec.urls) or spec.argument or spec.name, **dict(spec.options)} for spec in specs
    ]
    keys = {key: None for options in options_by_target for key in options}
    differing = [key for key in keys if len({options.get(key) for options in options_by_target}) > 1]
    return [
        on_one_line(", ".join(f"{key} {options[key]}".strip() for key in differing if key in options))
        for options in options_by_target
    ]


def _arrival_names(sources: Sequence[SweepSource]) -> list[str]:
    """Return the arrival and the think time of each sweep, those of them that differ."""
    asked = [source.sweep.record.curves[0] if source.sweep.record.curves else None for source in sources]
    arrivals = [arrival_text(curve.arrival) if curve else "" for curve in asked]
    thinks = [think_text(curve.think) if curve and curve.think else "" for curve in asked]
    columns = [texts for texts in (arrivals, thinks) if len(set(texts)) > 1]
    return [", ".join(filter(None, words)) for words in zip(*columns, strict=True)] or [""] * len(sources)


def _test_names(tests: Sequence[str]) -> list[str]:
    """Return tests by the name of their function, or in full where that is the same."""
    short = [on_one_line(test.rpartition("::")[2].partition("[")[0]) for test in tests]
    return short if len(set(short)) == len(set(tests)) else [on_one_line(test) for test in tests]


def _run_names(runs: Sequence[Run]) -> list[str]:
    """Return runs by the day they were made, more exactly where that is the same, or by id."""
    run_count = len({run.run_id for run in runs})
    for shape in ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S"):
        dates = [f"{run.record.started_at:{shape}}" for run in runs]
        if len(set(dates)) == run_count:
            return dates
    return [run.run_id for run in runs]
