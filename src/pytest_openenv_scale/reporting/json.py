"""What programs read: `report.json`, and the properties of a test in a JUnit file."""

from __future__ import annotations

import json
from typing import Any

from pytest_openenv_scale.analysis.protocols import compare_modes
from pytest_openenv_scale.analysis.run import Run
from pytest_openenv_scale.config.limits import Limit
from pytest_openenv_scale.config.plan import Curve
from pytest_openenv_scale.core.parsing import format_number
from pytest_openenv_scale.core.serialization import encode
from pytest_openenv_scale.core.text import on_one_line
from pytest_openenv_scale.results.manifest import SweepRecord
from pytest_openenv_scale.verdict.sweep import CurveView, SweepView

from .content import replicas, wording
from .content.overview import problems
from .content.replicas import AXES, scaling_tables
from .content.wording import Row, rows_of

FORMAT = 1

_TOLD_ABOVE = ("run_id", "sweep_id", "cell", "limits", "hardware", "cores", "hosts_available")
"""Fields of a summary that the sweep, the curve or the cell around it holds already."""


def render(run: Run) -> str:
    """Return the report as JSON text that ends with a line end."""
    return json.dumps(document(run), ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def document(run: Run) -> dict[str, Any]:
    """Return the report as plain JSON types, in the form the module describes."""
    record = run.record.to_json()
    return {
        "format": FORMAT,
        "run_id": run.run_id,
        "status": run.status,
        "outcome": run.outcome.value,
        **{name: record[name] for name in ("started_at", "finished_at", "note", "command", "kept")},
        "problems": problems(run),
        "environment": record["fingerprint"],
        "plan": record["plan"],
        "sweeps": [_sweep(view) for view in run.sweeps],
        "checks": [check.to_json() for check in run.checks],
        **{axis: [table.to_document() for table in scaling_tables(run.sweeps, (axis,))] for axis in AXES},
    }


def _sweep(view: SweepView) -> dict[str, Any]:
    record = view.record.to_json()
    told = {name: value for name, value in record.items() if name not in ("curves", "slos", "outcome")}
    curves = [_curve(view.record, curve) for curve in view.curves]
    if view.record.comparison is not None:
        told["comparison"] = {"outcome": view.record.comparison.outcome.value, **told["comparison"]}
    return {**told, "outcome": view.outcome.value, "protocols": encode(compare_modes(view)), "curves": curves}


def _curve(record: SweepRecord, view: CurveView) -> dict[str, Any]:
    verdict = view.verdict
    return {
        "curve_id": view.curve.id,
        "mode": view.curve.mode,
        "wait": view.curve.wait,
        "batches": list(view.curve.batches),
        "slo": [_limit(limit) for limit in verdict.slo.limits],
        "outcome": verdict.outcome.value,
        "headline": verdict.headline,
        "max_batch": verdict.max_batch,
        "max_batch_per_core": verdict.max_batch_per_core,
        "feasible_max": verdict.feasible_max,
        "infeasible_min": verdict.infeasible_min,
        "stop_reason": verdict.stop_reason,
        "first_breach": encode(verdict.first_breach),
        "refused": encode(verdict.refused),
        "reasons": encode(verdict.reasons),
        "rerun": wording.rerun(record, view.curve),
        "cells": [_cell(row) for row in rows_of(view)],
    }


def _limit(limit: Limit) -> dict[str, Any]:
    kind = limit.kind
    told = {"name": limit.name, "allowed": limit.allowed, "source": limit.source}
    return {**told, "unit": kind.unit, "direction": kind.direction}


def _cell(row: Row) -> dict[str, Any]:
    return {
        "cell_id": row.repetitions[0].cell.id,
        "batch": row.batch,
        "passed": row.verdict.passed if row.verdict else None,
        "breaches": encode(row.verdict.breaches) if row.verdict else [],
        "reasons": encode(row.verdict.reasons) if row.verdict else [],
        "repetitions": [
            {name: value for name, value in summary.to_json().items() if name not in _TOLD_ABOVE}
            for summary in row.repetitions
        ],
    }


def junit_properties(view: SweepView) -> list[tuple[str, object]]:
    """Return names and values for `user_properties`; those of a curve name it, as in "openenv_max_batch[ws,wait=1]".

    `openenv_success` (a fraction) is that of the largest batch measured, `openenv_total_p99` (seconds) that of
    max batch, each the worst of the repetitions; what is not known is left out. Where ws and http were measured,
    `openenv_protocol_winner[wait=1]` and `openenv_protocol_ratio[wait=1]` compare them: ws max ÷ http max, as "4",
    "≥ 4", or "–" where it is not known.
    """
    found: list[tuple[str, object]] = [
        ("openenv_verdict", view.outcome.value),
        ("openenv_target", on_one_line(view.target)),
        ("openenv_infrastructure", on_one_line(view.infrastructure)),
    ]
    for curve in view.curves:
        name = _name(curve.curve)
        found += [(f"openenv_{key}[{name}]", value) for key, value in _figures(curve) if value is not None]
    for compared in compare_modes(view):
        name = "" if compared.wait is None else f"[wait={format_number(compared.wait)}]"
        found.append((f"openenv_protocol_winner{name}", compared.winner or "unknown"))
        found.append((f"openenv_protocol_ratio{name}", replicas.ratio(compared)))
    return found


def _name(curve: Curve) -> str:
    return curve.mode if curve.wait is None else f"{curve.mode},wait={format_number(curve.wait)}"


def _figures(view: CurveView) -> list[tuple[str, object]]:
    rows = rows_of(view)
    verdict = view.verdict
    best = next((row for row in rows if row.batch == verdict.max_batch), None)
    return [
        ("max_batch", "none" if verdict.max_batch is None else verdict.max_batch),
        ("max_batch_per_core", verdict.max_batch_per_core),
        ("success", _success(rows[-1]) if rows else None),
        ("total_p99", _total_p99(best) if best else None),
        ("reason", on_one_line(verdict.headline)),
    ]


def _success(row: Row) -> float | None:
    return min((cell.success_rate for cell in row.repetitions if cell.success_rate is not None), default=None)


def _total_p99(row: Row) -> float | None:
    worst = max((stats.p99 for cell in row.repetitions if (stats := cell.phase("total"))), default=None)
    return None if worst is None else round(worst, 6)
