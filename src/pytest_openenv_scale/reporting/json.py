"""What programs read: `report.json`, and the properties of a test in a JUnit file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_openenv_scale.analysis.axes import (
    SERVER_AXES,
    ProtocolComparison,
    ServerScaling,
    compare_modes,
    server_scalings,
)
from pytest_openenv_scale.analysis.compare import side_of
from pytest_openenv_scale.analysis.run import Run
from pytest_openenv_scale.analysis.study import BatchPoint, batch_points
from pytest_openenv_scale.config.limits import Limit
from pytest_openenv_scale.config.plan import Curve
from pytest_openenv_scale.core.parsing import format_number
from pytest_openenv_scale.core.serialization import encode
from pytest_openenv_scale.core.text import on_one_line
from pytest_openenv_scale.metrics.certainty import least_samples
from pytest_openenv_scale.metrics.percentiles import PERCENTILES
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.reporting.content.wording import run_problems
from pytest_openenv_scale.results.comparison import Change, Comparison
from pytest_openenv_scale.results.manifest import SweepRecord
from pytest_openenv_scale.results.outcome import Breach, Reason, Refusal
from pytest_openenv_scale.verdict.sweep import CurveView, SweepView

from .content import cell_verdicts, study_tables, verdicts, wording
from .content.comparison import reason_text
from .content.refusals import refusal_words

FORMAT = 1

FIELDS_ABOVE = ("run_id", "sweep_id", "cell", "limits", "hardware", "cores", "hosts_available")
"""Fields of a summary that are left out, as the sweep, curve or cell around it holds them."""


def run_json(run: Run) -> str:
    """Return the report as JSON text that ends with a line end."""
    return json.dumps(run_document(run), ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def run_document(run: Run) -> dict[str, Any]:
    """Return the report as plain JSON types, in the form the module describes."""
    record = run.record.to_json()
    return {
        "format": FORMAT,
        "run_id": run.run_id,
        "status": run.status,
        "outcome": run.outcome.value,
        **{name: record[name] for name in ("started_at", "finished_at", "note", "command", "kept")},
        "problems": run_problems(run),
        "environment": record["fingerprint"],
        "plan": record["plan"],
        "sweeps": [_sweep_document(view) for view in run.sweeps],
        "checks": [check.to_json() for check in run.checks],
        **{axis: [*map(_scaling_document, server_scalings(run.sweeps, (axis,)))] for axis in SERVER_AXES},
    }


def _sweep_document(view: SweepView) -> dict[str, Any]:
    record = view.record.to_json()
    fields = {name: value for name, value in record.items() if name not in ("curves", "slos", "outcome")}
    curves = [_curve_document(view.record, curve) for curve in view.curves]
    if view.record.comparison is not None:
        fields["comparison"] = comparison_document(view.record.comparison)
    return {
        **fields,
        "outcome": view.outcome.value,
        "protocols": [_protocol_document(item) for item in compare_modes(view)],
        "curves": curves,
    }


def comparison_document(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as plain JSON types, with its outcome; the reason of each change is a whole sentence."""
    curves = [{**curve.to_json(), "changes": [*map(_change_document, curve.changes)]} for curve in comparison.curves]
    return {"outcome": comparison.outcome.value, **comparison.to_json(), "curves": curves}


def run_list_document(runs: Sequence[Run], damaged: Mapping[Path, str], older: int) -> dict[str, Any]:
    """Return stored runs for `openenv-scale list --json`; `damaged` are those that cannot be read, with the reason."""
    return {
        "format": FORMAT,
        "runs": [_listed_document(run) for run in runs],
        "damaged": [{"path": str(path), "problem": problem} for path, problem in damaged.items()],
        "older": older,
    }


def _listed_document(run: Run) -> dict[str, Any]:
    side = side_of(run).to_json()
    record = run.record.to_json()
    return {
        "path": str(run.path),
        **{name: side[name] for name in ("run_id", "status", "commit", "branch", "dirty")},
        **{name: record.get(name) for name in ("started_at", "finished_at", "note")},
        "outcome": run.outcome.value if run.sweeps or run.checks else None,
        "targets": list(dict.fromkeys(view.target for view in run.sweeps)),
        "curves": [
            {
                "test": view.test,
                "target": view.target,
                "infrastructure": view.infrastructure,
                "mode": curve.curve.mode,
                "wait": curve.curve.wait,
                "outcome": curve.verdict.outcome.value,
                "max_batch": curve.verdict.max_batch,
                "is_open": wording.is_open(curve.verdict),
            }
            for view in run.sweeps
            for curve in view.curves
        ],
        "problems": list(run.problems),
    }


def _change_document(change: Change) -> dict[str, Any]:
    why = change.why.to_json()
    return {**change.to_json(), "reason": reason_text(change), "cause": why["cause"], "doubt": why["doubt"]}


_SCALING_FIGURES = (
    *("requests_per_second", "scaling_factor", "efficiency"),
    *("capacity_factor", "capacity_efficiency"),
)


def _scaling_document(scaling: ServerScaling) -> dict[str, Any]:
    """Return what more servers bring; keys of its rows name the axis: "replicas", "sessions_per_replica"."""
    rows = [
        {
            scaling.axis: row.count,
            "max_batch": row.max_batch,
            "max_batch_text": wording.max_batch_text(row.verdict),
            "is_open": wording.is_open(row.verdict),
            f"sessions_per_{scaling.unit}": row.sessions_each,
            **{name: getattr(row, name) for name in _SCALING_FIGURES},
        }
        for row in scaling.rows
    ]
    fields = {name: getattr(scaling, name) for name in ("test", "target", "mode", "wait", "cores")}
    return {**fields, "rows": rows}


def _protocol_document(comparison: ProtocolComparison) -> dict[str, Any]:
    return {**comparison.to_json(), "notes": study_tables.protocol_notes(comparison)}


def _curve_document(record: SweepRecord, view: CurveView) -> dict[str, Any]:
    verdict = view.verdict
    return {
        "curve_id": view.curve.id,
        "mode": view.curve.mode,
        "wait": view.curve.wait,
        "batches": list(view.curve.batches),
        "slo": [_limit_document(limit) for limit in verdict.slo.limits],
        "outcome": verdict.outcome.value,
        "headline": verdicts.headline(view),
        "max_batch": verdict.max_batch,
        "max_batch_per_core": verdict.max_batch_per_core,
        "cost": verdict.cost.to_json(),
        "feasible_max": verdict.feasible_max,
        "infeasible_min": verdict.infeasible_min,
        "stop_reason": verdicts.stop_words(verdict),
        "search": verdict.search.to_json() if verdict.search else None,
        "first_breach": _breach_document(view, verdict.first_breach) if verdict.first_breach else None,
        "refused": [_refusal_document(refusal) for refusal in verdict.refused],
        "reasons": encode(tuple(verdicts.reason_lines(view))),
        "rerun": wording.rerun_command(record, view.curve),
        "cells": [_cell_document(view, row) for row in batch_points(view)],
        "set_aside": [_repetition_document(summary, of_batch=True) for summary in view.set_aside],
    }


def _limit_document(limit: Limit) -> dict[str, Any]:
    kind = limit.kind
    fields = {"name": limit.name, "allowed": limit.allowed, "source": limit.source}
    return {**fields, "unit": kind.unit, "direction": kind.direction}


def _cell_document(view: CurveView, row: BatchPoint) -> dict[str, Any]:
    verdict = row.verdict
    return {
        "cell_id": row.repetitions[0].cell.id,
        "batch": row.batch,
        "passed": verdict.passed if verdict else None,
        "breaches": [_breach_document(view, breach) for breach in verdict.breaches] if verdict else [],
        "reasons": [_reason_document(reason) for reason in verdict.reasons] if verdict else [],
        "certainty": _certainty_document(view, row),
        "repetitions": [_repetition_document(summary) for summary in row.repetitions],
    }


_CERTAIN_PHASES = ("connect", "reset", "step", "total")


def _certainty_document(view: CurveView, row: BatchPoint) -> dict[str, Any]:
    """Return the intervals of success, of p50 and p99 of the phases, and of every percentile that a limit is about."""
    limited = {(limit.kind.phase or "", limit.kind.statistic or "") for limit in view.verdict.slo.limits}
    usual = {(phase, statistic) for phase in _CERTAIN_PHASES for statistic in ("p50", "p99")}
    names = sorted(name for name in usual | limited if name[1] in PERCENTILES)
    intervals = {f"{phase}_{statistic}": row.latency_interval(phase, statistic) for phase, statistic in names}
    success = row.success_interval()
    return {
        "success": success and success.to_json(),
        **{
            name: interval and {**interval.to_json(), "least_samples": least_samples(PERCENTILES[name[-3:]])}
            for name, interval in intervals.items()
        },
    }


def _repetition_document(summary: CellSummary, *, of_batch: bool = False) -> dict[str, Any]:
    fields = {name: value for name, value in summary.to_json().items() if name not in FIELDS_ABOVE}
    # Their intervals are in the cell's certainty, which is that of all its repetitions.
    fields["phases"] = {
        phase: {name: value for name, value in stats.items() if name != "intervals"}
        for phase, stats in fields["phases"].items()
    }
    fields["cpu_per_step"] = summary.cpu_per_step
    if of_batch:
        fields = {"batch": summary.batch, **fields}
    return {**fields, "server_exit": summary.server_exit and summary.server_exit.text, "exit": fields["server_exit"]}


def _breach_document(view: CurveView, breach: Breach) -> dict[str, Any]:
    return {**breach.to_json(), "text": cell_verdicts.breach_text(view, breach)}


def _reason_document(reason: Reason) -> dict[str, Any]:
    return {**reason.to_json(), "text": cell_verdicts.reason_words(reason)}


def _refusal_document(refusal: Refusal) -> dict[str, Any]:
    text, remedy = refusal_words(refusal)
    return {**refusal.to_json(), "text": text, "remedy": remedy}


def junit_properties(view: SweepView) -> list[tuple[str, object]]:
    """Return names and values for `user_properties`; those of a curve name it, as in "openenv_max_batch[ws,wait=1]".

    `openenv_success` (a fraction) is that of the largest batch measured, `openenv_total_p99` (seconds) that of
    max batch, each the worst of the repetitions; `openenv_success_batch` and `openenv_total_p99_batch` name those
    batches. `openenv_open_least` is the fewest sessions that were open at once in a steady state of max batch slots.
    What is not known is left out. Where ws and http were measured,
    `openenv_protocol_winner[wait=1]` and `openenv_protocol_ratio[wait=1]` compare them: ws max ÷ http max, as "4",
    "≥ 4", or "–" where it is not known; the winner is "unknown" where none is named.
    """
    properties: list[tuple[str, object]] = [
        ("openenv_verdict", view.outcome.value),
        ("openenv_target", on_one_line(view.target)),
        ("openenv_infrastructure", on_one_line(view.infrastructure)),
    ]
    for curve in view.curves:
        name = _curve_name(curve.curve)
        properties += [(f"openenv_{key}[{name}]", value) for key, value in _curve_figures(curve) if value is not None]
    for comparison in compare_modes(view):
        name = "" if comparison.wait is None else f"[wait={format_number(comparison.wait)}]"
        properties.append((f"openenv_protocol_winner{name}", comparison.winner or "unknown"))
        properties.append((f"openenv_protocol_ratio{name}", study_tables.ratio_text(comparison)))
    return properties


def _curve_name(curve: Curve) -> str:
    return curve.mode if curve.wait is None else f"{curve.mode},wait={format_number(curve.wait)}"


def _curve_figures(view: CurveView) -> list[tuple[str, object]]:
    rows = batch_points(view)
    verdict = view.verdict
    best = next((row for row in rows if row.batch == verdict.max_batch), None)
    total_p99 = best.latency("total") if best else None
    success = rows[-1].success if rows else None
    return [
        ("max_batch", "none" if verdict.max_batch is None else verdict.max_batch),
        ("max_batch_per_core", verdict.max_batch_per_core),
        ("success", success),
        ("success_batch", None if success is None else rows[-1].batch),
        ("total_p99", None if total_p99 is None else round(total_p99, 6)),
        ("total_p99_batch", None if total_p99 is None else verdict.max_batch),
        ("open_least", best.open_least if best else None),
        ("reason", on_one_line(verdicts.headline(view))),
    ]
