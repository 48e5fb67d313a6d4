"""How the sessions of a study spread over the hosts behind one address."""

from __future__ import annotations

from pytest_openenv_scale.core.summary import CellSummary

from .study import Point, Study, StudyCurve
from .study_table import PLACE, StudyTable, Value, count, place

HEADS = (*PLACE, "batch", "hosts", "hosts used", "fewest", "most")


def hosts(study: Study) -> StudyTable:
    """Return, for each batch on several hosts, the sessions of the host with the fewest and of that with the most."""
    rows = [row for curve in study.curves for point in curve.points if (row := _row(curve, point)) is not None]
    notes = ("sessions that succeeded, by host, in the least even repetition",) if rows else ()
    return StudyTable("hosts", "Sessions per host", HEADS, tuple(rows), frozenset({"wait", *HEADS[3:]}), notes)


def _row(curve: StudyCurve, point: Point) -> tuple[Value, ...] | None:
    told = [summary for summary in point.repetitions if summary.hosts_known and _available(summary) > 1]
    if not told:
        return None
    worst = max(told, key=lambda summary: max(_counts(summary)) - min(_counts(summary)))
    counts = _counts(worst)
    used = len(worst.host_counts)
    return (
        *place(curve),
        *map(count, (point.batch, _available(worst), used, min(counts), max(counts))),
    )


def _available(summary: CellSummary) -> int:
    return max(summary.hosts_available or 0, len(summary.host_counts))


def _counts(summary: CellSummary) -> list[int]:
    """Return the sessions of each host, of those that got none too."""
    seen = list(summary.host_counts.values())
    return [*seen, *([0] * (_available(summary) - len(seen)))]
