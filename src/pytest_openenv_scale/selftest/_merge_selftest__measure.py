"""One measurement: a batch of sessions against a null server, the client's latencies beside the server's own."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.load import CellResult, LoadGenerator
from ..core.orders import LoadOrder
from ..core.plan import Cell
from .figures import Asked, Rung
from .null_process import NullServerProcess

_TIMEOUT_S = 30.0


def measure(generator: LoadGenerator, asked: Asked, mode: str, arrival: str, batch: int) -> Rung:
    """Run one batch against a server of its own: nothing an earlier one left behind is met again.

    Raises:
        LoadError: a load process refused the order: the workload cannot be used.
        SelfTestError: the null server cannot be started, or ended by itself.
    """
    cell = Cell("self-test", "null", "null", mode, asked.wait_s, batch, 1, arrival)
    with NullServerProcess() as server:
        order = LoadOrder(cell, 1, (server.url,), {}, asked.workload, _TIMEOUT_S)
        result = generator.run_cell(order)
        truth = server.truth().overheads_s
    steps, failures = _outcome(result, asked.wait_s)
    known, told = (_p50_p99(truth), _p50_p99(steps))
    invented = tuple(
        None if ours is None or theirs is None else ours - theirs for ours, theirs in zip(told, known, strict=True)
    )
    return Rung(
        mode,
        arrival,
        batch,
        result.client.processes,
        *known,
        *told,
        *invented,
        cpu_s=sum(result.client.cpu_s) / batch,
        failed=len(failures),
        problem=_problem(failures, result, batch),
    )


def _outcome(result: CellResult, wait_s: float) -> tuple[list[float], list[str]]:
    """Return the successful sessions' step latencies beyond the wait, sorted, and what the others died of."""
    steps = sorted(row.step_latency - wait_s for row in result.rows if row.success and row.step_latency is not None)
    failures = [f"{row.error_phase}: {row.error_message or row.error_type}" for row in result.rows if not row.success]
    return steps, failures


def _problem(failures: Sequence[str], result: CellResult, batch: int) -> str | None:
    if failures:
        return f"{len(failures):,} of {batch:,} sessions failed ({failures[0]})"
    return result.findings[0].message if result.findings else None


def _p50_p99(values: Sequence[float]) -> tuple[float | None, float | None]:
    return percentile(values, 0.50), percentile(values, 0.99)


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return a percentile of sorted values, linear between neighbours; None where there is no value."""
    if not values:
        return None
    place = share * (len(values) - 1)
    below = int(place)
    above = min(below + 1, len(values) - 1)
    return values[below] + (values[above] - values[below]) * (place - below)
