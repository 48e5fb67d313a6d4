"""A steady state over time in words: what a window is that is not judged, and what windows span in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

from pytest_openenv_scale.analysis.study import BatchPoint, batch_points
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.metrics.drift import WARM_UP_SHARE
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.metrics.windows import Window
from pytest_openenv_scale.results.outcome import CheckResult
from pytest_openenv_scale.verdict.sweep import CurveView

from .wording import load_name


def windows_sentences(view: CurveView) -> list[str]:
    """Return a sentence per batch in a steady state: what its judged windows span, over all repetitions.

    Of a search it is the batches on either side of its limit.
    """
    points = batch_points(view)
    if (verdict := view.verdict).search is not None:
        points = tuple(point for point in points if point.batch in (verdict.feasible_max, verdict.infeasible_min))
    return [sentence for point in points if (sentence := _windows_sentence(point)) is not None]


def _judged_windows(cell: CellSummary) -> list[Window]:
    return [window for window in cell.windows if window.judged]


def _windows_sentence(point: BatchPoint) -> str | None:
    by_repetition = list(map(_judged_windows, point.repetitions))
    windows = [window for judged in by_repetition for window in judged]
    spans = window_spans(windows)
    if not spans:
        return None
    count = formatting.count_of(max(map(len, by_repetition)), "window")
    length = moment(windows[0].end_s - windows[0].start_s)
    several = f" in each of {len(by_repetition)} repetitions" if len(by_repetition) > 1 else ""
    name = load_name(point.worst.cell)
    return f"{name}, {count} of {length} s{several}: {', '.join(spans)}"


def window_spans(windows: Sequence[Window]) -> list[str]:
    """Return what windows span, "step p99 12 to 15 ms" and so on; nothing of what none of them tells."""
    least_open = [window.open_least for window in windows if window.open_least is not None]
    spans = [
        _span("step p99", formatting.seconds, (window.step_p99_s for window in windows)),
        _span("success", formatting.percent, (window.success_rate for window in windows)),
        f"open at least {formatting.count(min(least_open))}" if least_open else None,
        _span("memory", formatting.size, (window.rss_bytes for window in windows)),
    ]
    return [span for span in spans if span is not None]


def _span(name: str, text: Callable[[Any], str], values: Iterable[float | None]) -> str | None:
    known = [value for value in values if value is not None]
    return f"{name} {formatting.text_range(text(min(known)), text(max(known)))}" if known else None


def check_windows(result: CheckResult) -> tuple[Window, ...]:
    """Return the windows of a check that let sessions play on (endurance); nothing of others."""
    series = result.series
    if not {"at_s", "step_p50_s", "step_p99_s"} <= series.keys():
        return ()
    ends = [end for end in series["at_s"] if end is not None]

    def figure(name: str, at: int) -> float | None:
        values = series.get(name, ())
        return values[at] if at < len(values) else None

    def count(name: str, at: int) -> int | None:
        value = figure(name, at)
        return None if value is None else int(value)

    return tuple(
        Window(
            start_s=start,
            end_s=end,
            judged=end > WARM_UP_SHARE * ends[-1],
            step_p50_s=figure("step_p50_s", at),
            step_p99_s=figure("step_p99_s", at),
            rss_bytes=count("rss_bytes", at),
            threads=count("threads", at),
            descriptors=count("descriptors", at),
        )
        for at, (start, end) in enumerate(pairwise([0.0, *ends]))
    )


def moment(at_s: float) -> str:
    """Return seconds since the start of a cell without their unit: "60", "62.4", "3,600"."""
    return f"{at_s:,.1f}".removesuffix(".0")


def unjudged_name(windows: Sequence[Window], window: Window, beginning: str) -> str:
    """Return what a window is that is not judged: "drain" after those that are, else the `beginning`; or nothing."""
    if window.judged:
        return ""
    is_after = any(other.judged and other.end_s <= window.start_s for other in windows)
    return "drain" if is_after else beginning
