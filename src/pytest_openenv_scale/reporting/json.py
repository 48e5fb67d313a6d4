"""`report.json`: the figures and verdicts of a run for programs.

Strict JSON (no NaN), UTF-8, of `"format": 1`; keys are only ever added within a format. Seconds are floats,
shares are fractions of 1, times are ISO 8601 in UTC, and null stands where there is nothing.

    format          1
    run_id, status  status is running, complete, failed or interrupted
    outcome         met, missed or inconclusive: that of all sweeps and checks
    started_at, finished_at, note, command (a list), kept
    problems        texts: what keeps the run from being whole
    environment     fingerprint: machine, os, python, packages, git
    plan            what was asked of the whole run
    sweeps          one per test and target:
      sweep_id, test, target, infrastructure, hardware, cores, hosts, limits, startup_s
      status, outcome, started_at, finished_at, steps, arrival, reps, timeout_s, settings, notes, rerun
      comparison    null, or how this sweep compares with a baseline; `outcome` above is that of the SLO alone:
        outcome        regressed, inconclusive, held or shown (nobody said what fails)
        baseline, now  run_id, status, started_at, commit, branch, dirty
        fail_on        the expressions it is judged by; reference is how the baseline was named
        differences    of the machines: name, baseline, now; remarks are texts; others are tests not selected now
        curves         test, infrastructure, mode, wait, state (compared, missing, new, different), remarks, renamed
          changes        metric, batch, status, reason, fail_on, allowed, effect (Cliff's delta), baseline and now:
            value, low, high, repetitions, count, known
      protocols     one per wait that was measured over both modes, empty where there is only one:
        wait, ratio (ws max ÷ http max), winner (ws, http, equal or null), notes (texts)
        batch          the largest at which sessions of both succeeded, if possible with neither inconclusive; or null
        ws, http       outcome, max_batch, known (exact, open or inconclusive), and at that batch, the worst of
                       its repetitions: success, reset_p50, step_p50, step_p99, total_p99
      curves        one per mode and wait:
        curve_id, mode, wait, batches (those planned), slo (a list of name, allowed, unit, direction, source)
        outcome, headline, max_batch, max_batch_per_core, feasible_max, infeasible_min, stop_reason
        first_breach   null, or batch, repetition, limit, phase, statistic, observed, allowed, text
        refused        a list of cause, count, batch, text, remedy
        reasons        a list of kind, text, detail; the first is the headline
        rerun          the command that measures this curve again
        cells          one per batch that was measured:
          cell_id, batch, passed (null: inconclusive), breaches, reasons
          repetitions  one per repetition: asked, successful, failed, client_limited, success_rate, wall_s,
                       phases (per phase count, min, mean, max, p50, p90, p95, p99), requests_per_second,
                       effective_concurrency, peak_concurrency, pids, sessions, hosts, host_counts, errors,
                       lost_workers, findings, client, server, server_exit, log_tail, started_at, failed_hosts,
                       proxy (null, or name, requests per host, overflows, troubles, mishaps, rss_bytes, cpu_seconds)
    checks          one per check of the suite: test, target, infrastructure, subject, started_at, took_s, rerun, and
      result        outcome (met, missed, inconclusive, skipped), headline, remedy, details, figures (by name, units
                    in the names), series, transcripts (a list of title and said: at_s, by, text)
    replicas        one per test, target, mode and wait that was measured with several numbers of replicas:
      test, target, mode, wait, cores
      rows          replicas, max_batch, max_batch_text, is_open, sessions_per_replica, requests_per_second,
                    scaling_factor, efficiency, capacity_factor, capacity_efficiency
    nodes           the same for numbers of nodes, with nodes and sessions_per_node in its rows
"""

from __future__ import annotations

import json
from typing import Any

from pytest_openenv_scale.core.compare_modes import compare_modes
from pytest_openenv_scale.core.jsonable import encode
from pytest_openenv_scale.core.manifest import SweepRecord
from pytest_openenv_scale.core.run import Run
from pytest_openenv_scale.core.slo import Limit
from pytest_openenv_scale.core.view import CurveView, SweepView

from . import phrases
from .columns import Row, rows_of
from .overview import problems
from .replicas import AXES, scaling_tables

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
        "rerun": phrases.rerun(record, view.curve),
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
