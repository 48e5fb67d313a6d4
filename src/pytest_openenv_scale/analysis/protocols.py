"""The protocol comparison: what a server holds over WebSocket and over HTTP, side by side, per target and wait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_openenv_scale.core.serialization import Jsonable
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.outcome import Reason
from pytest_openenv_scale.verdict.sweep import CurveView, SweepView, max_batch_certainty

HTTP_FOOTNOTE = (
    "HTTP gives every request an environment of its own: it cannot hold an episode, so its sessions are only a"
    " reset and steps that know nothing of each other"
)

COMPARED_LATENCIES = (("reset", "p50"), ("step", "p50"), ("step", "p99"), ("total", "p99"))
"""Phase and statistic of the latencies that are compared."""


@dataclass(frozen=True, slots=True)
class ModeResult(Jsonable):
    """What one mode reached.

    `known` says how well `max_batch` is: `exact` where the next batch definitely failed, `open` where the largest
    batch asked for passes, `inconclusive` where the next one could not be judged. Latencies (seconds) and
    `success` (a fraction) are those at the batch of the comparison, the worst of its repetitions; null where
    none is common. `doubtful_batch` is the smallest that could not be judged, `doubt` the first thing to be said of it.
    """

    mode: str
    outcome: str
    max_batch: int | None
    known: str
    success: float | None = None
    reset_p50: float | None = None
    step_p50: float | None = None
    step_p99: float | None = None
    total_p99: float | None = None
    doubtful_batch: int | None = None
    doubt: Reason | None = None

    @property
    def certain_batch(self) -> int:
        """The largest batch that passed for certain, 0 where none did."""
        return self.max_batch or 0


@dataclass(frozen=True, slots=True)
class ProtocolComparison(Jsonable):
    """Both modes at one wait (seconds; None where waits mean nothing).

    `ratio` is ws max ÷ http max, null where one of them has none. `winner` is ws, http, equal, or null where what
    was measured does not tell: a mode wins only over one whose max batch is exact. `batch` is the largest at which
    sessions of both succeeded, one that is inconclusive in neither if there is any.
    """

    wait: float | None
    ws: ModeResult
    http: ModeResult
    ratio: float | None
    winner: str | None
    batch: int | None

    @property
    def modes(self) -> tuple[ModeResult, ModeResult]:
        """Both results, ws first."""
        return self.ws, self.http


def compare_modes(view: SweepView) -> tuple[ProtocolComparison, ...]:
    """Compare the modes of a sweep; nothing where it has only one, or where one of them was not measured."""
    curves = {(curve.curve.mode, curve.curve.wait): curve for curve in view.curves if curve.summaries}
    return tuple(
        _compare_curves(curve, curves["http", wait])
        for (mode, wait), curve in curves.items()
        if mode == "ws" and ("http", wait) in curves
    )


def _compare_curves(ws: CurveView, http: CurveView) -> ProtocolComparison:
    common = set(_successful_repetitions(ws)) & set(_successful_repetitions(http))
    certain = {batch for batch in common if not _is_doubtful(ws, batch) and not _is_doubtful(http, batch)}
    batch = max(certain or common, default=None)
    results = _mode_result(ws, batch), _mode_result(http, batch)
    first, second = results
    ratio = first.max_batch / second.max_batch if first.max_batch and second.max_batch else None
    return ProtocolComparison(ws.curve.wait, first, second, ratio, _winner(first, second), batch)


def _successful_repetitions(view: CurveView) -> dict[int, list[CellSummary]]:
    """Return the repetitions of every batch in which sessions succeeded."""
    repetitions: dict[int, list[CellSummary]] = {}
    for summary in view.summaries:
        if summary.successful:
            repetitions.setdefault(summary.batch, []).append(summary)
    return repetitions


def _is_doubtful(view: CurveView, batch: int) -> bool:
    cell = view.verdict.cell(batch)
    return cell is None or cell.passed is None


def _mode_result(view: CurveView, batch: int | None) -> ModeResult:
    verdict = view.verdict
    cells = [] if batch is None else _successful_repetitions(view)[batch]
    figures = {
        f"{phase}_{statistic}": _worst_latency(cells, phase, statistic) for phase, statistic in COMPARED_LATENCIES
    }
    success = min((cell.success_rate for cell in cells if cell.success_rate is not None), default=None)
    known = max_batch_certainty(view)
    doubtful = next((cell for cell in verdict.cells if cell.passed is None), None)
    return ModeResult(
        view.curve.mode,
        verdict.outcome.value,
        verdict.max_batch,
        known,
        success,
        doubtful_batch=doubtful.batch if doubtful else None,
        doubt=doubtful.reasons[0] if doubtful and doubtful.reasons else None,
        **figures,
    )


def _worst_latency(cells: Sequence[CellSummary], phase: str, statistic: str) -> float | None:
    return max((float(getattr(stats, statistic)) for cell in cells if (stats := cell.phase(phase))), default=None)


def _winner(ws: ModeResult, http: ModeResult) -> str | None:
    if ws.known == http.known == "exact" and ws.certain_batch == http.certain_batch:
        return "equal" if ws.certain_batch else None
    for result, other in ((ws, http), (http, ws)):
        if other.known == "exact" and result.certain_batch > other.certain_batch:
            return result.mode
    return None
