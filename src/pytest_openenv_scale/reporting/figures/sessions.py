"""Figures of single sessions, from their stored rows: how overhead is distributed, how many were open over time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil, floor, log10
from typing import TYPE_CHECKING, Any

from pytest_openenv_scale.analysis.study import Study, StudyCurve
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.metrics.percentiles import value_counts
from pytest_openenv_scale.reporting.content.wording import load_name
from pytest_openenv_scale.results.parts import Part, PartError, latest_attempts

from . import content

if TYPE_CHECKING:
    import pyarrow as pa

STEPS_PER_DECADE = 120
"""The resolution of a distribution: finer than a pixel of its panel."""

FASTEST = 1e-5
"""Seconds below which a distribution is not told apart."""

TIME_COLUMNS = 500
"""The resolution of a time axis: finer than a pixel of its panel."""


@dataclass(frozen=True)
class StudyRows:
    """The stored parts of a study, found by run, sweep, cell and repetition."""

    parts: dict[tuple[str, str, str, int], Part]

    @classmethod
    def from_study(cls, study: Study) -> StudyRows:
        """Find the parts of all runs; those that cannot be read are left out, as the report names them already."""
        parts: dict[tuple[str, str, str, int], Part] = {}
        for run in study.runs:
            for part in latest_attempts(run.parts(lambda problem: None)):
                meta = part.meta
                parts[run.run_id, meta.sweep_id, meta.cell.id, meta.repetition] = part
        return cls(parts)

    def parts_of(self, curve: StudyCurve, batch: int) -> list[Part]:
        """Return the parts of one batch of a curve, one per repetition."""
        keys = {
            (curve.run.run_id, summary.sweep_id, summary.cell.id, summary.repetition)
            for summary in curve.curve.summaries
            if summary.batch == batch
        }
        return [self.parts[key] for key in sorted(keys) if key in self.parts]


def stream_tables(parts: Sequence[Part], columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the rows of parts in pieces of bounded size; a part that is damaged ends where the damage begins."""
    for part in parts:
        try:
            yield from part.batches(*columns)
        except PartError:
            continue


def overhead_distribution(parts: Sequence[Part]) -> tuple[int, list[float], list[float]]:
    """Return how many judged sessions succeeded, and the distribution of their overhead: seconds, share at most that.

    The shares are exact at every value returned; values are `STEPS_PER_DECADE` to a decade.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    counts = Counter[int]()
    for table in stream_tables(parts, ("success", "judged", "total_latency", "steps_done", "wait_requested")):
        good = table.filter(pc.and_(pc.fill_null(table["success"], False), table["judged"]))
        waited = pc.multiply(good["steps_done"], pc.fill_null(good["wait_requested"], 0.0))
        values = pc.drop_null(pc.subtract(good["total_latency"], waited))
        buckets = pc.ceil(pc.multiply(pc.log10(pc.max_element_wise(values, pa.scalar(FASTEST))), STEPS_PER_DECADE))
        counts.update(value_counts(pc.cast(buckets, pa.int32())))
    total = sum(counts.values())
    seconds: list[float] = []
    shares: list[float] = []
    below = 0
    for bucket in sorted(counts):
        below += counts[bucket]
        seconds.append(10 ** (bucket / STEPS_PER_DECADE))
        shares.append(below / total)
    return total, seconds, shares


@dataclass(frozen=True, slots=True)
class Concurrency:
    """Sessions at each moment: exact at every one of `times` (seconds since the cell's start)."""

    times: list[float]
    asked: list[int]
    opened: list[int]
    stepping: list[int]


_TIME_COLUMNS = ("due_s", "reset_done_s", "hold_latency", "closed_s")


def session_concurrency(part: Part) -> Concurrency | None:
    """Return how many sessions were asked for, open and stepping over the time of a repetition; None where none opened.

    Open is from the answered reset to the close, stepping from the end of the hold on. A batch that is held or comes
    as a burst is asked for as a whole, from beginning to end; one that arrives at a rate is what is due and not over.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    last = max(
        (_largest(table, ("closed_s", "reset_done_s")) for table in stream_tables([part], _TIME_COLUMNS)), default=0.0
    )
    if last <= 0:
        return None
    width = _round_up(last / TIME_COLUMNS)
    changes: dict[str, list[int]] = {name: [0] * (TIME_COLUMNS + 2) for name in ("asked", "opened", "stepping")}
    for table in stream_tables([part], _TIME_COLUMNS):
        reset_done = table["reset_done_s"]
        stepping = pc.add(reset_done, table["hold_latency"])
        for name, start in (("asked", table["due_s"]), ("opened", reset_done), ("stepping", stepping)):
            # One that never began cannot end; one without an end stays to the end.
            ended = pc.max_element_wise(start, table["closed_s"])
            has_end = pc.and_(pc.is_valid(start), pc.is_valid(table["closed_s"]))
            for values, sign in ((pc.drop_null(start), 1), (ended.filter(has_end), -1)):
                columns_reached = pc.cast(pc.ceil(pc.divide(values, width)), pa.int32())
                for column, count in value_counts(columns_reached).items():
                    changes[name][min(max(column, 0), TIME_COLUMNS + 1)] += sign * count
    levels = {name: list(accumulate(steps)) for name, steps in changes.items()}
    if not any(levels["opened"]):
        return None
    columns = min(TIME_COLUMNS + 1, ceil(last / width) + 1)
    if not part.meta.cell.arrival.startswith("rate"):
        levels["asked"] = [part.meta.cell.batch] * columns
    return Concurrency(
        [at * width for at in range(columns)], *(levels[name][:columns] for name in ("asked", "opened", "stepping"))
    )


def _largest(table: pa.Table, names: Sequence[str]) -> float:
    import pyarrow.compute as pc

    maxima: list[Any] = [pc.max(table[name]).as_py() for name in names]
    return max((value for value in maxima if value is not None), default=0.0)


def _round_up(value: float) -> float:
    """Return a width rounded up to two digits, so that a drawing does not depend on the last digit of a float."""
    scale = 10.0 ** (floor(log10(value)) - 1)
    return ceil(value / scale) * scale


CONCURRENCY_KEY = "concurrency"
ASKED, OPEN, STEPPING = "asked for", "open", "stepping"
MOST_PANELS = 12
"""The most cells shown; of more, those with the longest wait of each infrastructure and mode."""

_CONCURRENCY_COLUMNS = ("panel", "measure", "seconds", "sessions")
_PEAK_COLUMNS = ("panel", "peak", "text")


def concurrency_content(study: Study, rows: StudyRows) -> content.FigureContent | None:
    """Return the lines of the cell of max batch and of the smallest one that does not pass; None without rows."""
    cells = [(curve, point) for curve in study.curves for point in curve.bracket]
    if len(cells) > MOST_PANELS:
        longest = {(curve.infrastructure, curve.mode): curve for curve in study.curves}
        selected = [(curve, point) for curve, point in cells if longest[curve.infrastructure, curve.mode] is curve]
        if len(selected) > MOST_PANELS:
            selected = [(curve, point) for curve, point in selected if point == curve.bracket[-1]]
    else:
        selected = cells
    lines: list[tuple[Any, ...]] = []
    peaks: list[tuple[Any, ...]] = []
    for curve, point in selected[:MOST_PANELS]:
        cell = point.worst
        parts = [part for part in rows.parts_of(curve, point.batch) if part.meta.repetition == cell.repetition]
        concurrency = session_concurrency(parts[0]) if parts else None
        if concurrency is None or cell.peak_concurrency is None:
            continue
        batch_state = f"{load_name(cell.cell)}: {content.STATE_TEXTS[content.point_state(point)]}"
        panel = f"{curve.infrastructure}\n{content.panel_of(curve)} · {batch_state}"
        for measure, values in (
            (ASKED, concurrency.asked),
            (OPEN, concurrency.opened),
            # Nothing is held in a steady state, so that there is no moment from which on all step.
            (STEPPING, [] if cell.is_steady else concurrency.stepping),
        ):
            corners = _corners(values)
            lines += [(panel, measure, concurrency.times[at], values[at]) for at in corners]
        peaks.append(
            (
                panel,
                cell.held,
                f"at most {formatting.count(cell.held)} open of {formatting.count(cell.batch)}",
            )
        )
    if not lines:
        return None
    left_out = len(cells) - len(peaks)
    measures = list(dict.fromkeys(line[1] for line in lines))
    stepping = "; stepping: once the whole batch is up" if STEPPING in measures else ""
    notes = [
        "Each curve at its max batch and at the smallest batch that does not pass, in the worst repetition."
        f" Open: from the answered reset to the close{stepping}."
    ]
    if left_out:
        notes.append(f"{formatting.count_of(left_out, 'more cell')} not shown: shorter waits, or without rows.")
    return content.FigureContent(
        key=CONCURRENCY_KEY,
        title="Concurrent sessions over time",
        subtitle=peaks[0][0].replace("\n", " · ") if len(peaks) == 1 else "",
        alt_text="Sessions over time. "
        + "; ".join(f"{panel.replace(chr(10), ' ')}: {text}" for panel, _, text in peaks)
        + ".",
        frames={"lines": content.frame(_CONCURRENCY_COLUMNS, lines), "peaks": content.frame(_PEAK_COLUMNS, peaks)},
        facts={"panels": [peak[0] for peak in peaks], "measures": measures},
        notes=tuple(notes),
    )


def _corners(values: list[int]) -> list[int]:
    """Return the indices at which a line of steps changes, and its ends: all that is needed to draw it."""
    last = len(values) - 1
    return [
        at
        for at in range(len(values))
        if at in (0, last) or values[at] != values[at - 1] or values[at] != values[at + 1]
    ]


OVERHEAD_KEY = "overhead"
_OVERHEAD_COLUMNS = ("infrastructure", "panel", "batch", "seconds", "share")


def overhead_content(study: Study, rows: StudyRows) -> content.FigureContent | None:
    """Return the distribution of every batch over all of its repetitions; None where there are no rows."""
    lines: list[tuple[Any, ...]] = []
    for curve in study.curves:
        for point in curve.points:
            count, seconds, shares = overhead_distribution(rows.parts_of(curve, point.batch))
            if count:
                series = curve.infrastructure, content.panel_of(curve), point.batch
                # From the foot of the first step on.
                lines.append((*series, seconds[0], 0.0))
                lines += [(*series, at, share) for at, share in zip(seconds, shares, strict=True)]
    if not lines:
        return None
    curves = content.curves_in(study, lines)
    names = content.infrastructures_of(study, curves)
    low, high = min(line[3] for line in lines), max(line[3] for line in lines)
    return content.figure_of(
        study,
        curves,
        key=OVERHEAD_KEY,
        title="Distribution of overhead",
        alt_text=(
            f"Distribution of overhead at each batch of {content.names_text(names)}, from {formatting.seconds(low)}"
            f" to {formatting.seconds(high)}."
        ),
        frames={"lines": content.frame(_OVERHEAD_COLUMNS, lines)},
        notes=(
            "Overhead: total latency less the waits asked for, of successful sessions, all repetitions together."
            " Further left is faster; where a line crosses the dashed one, 99 % are done.",
        ),
        more=names if len(names) == 1 else (),
        batches=sorted({line[2] for line in lines}),
    )
