"""Sweeps for tests of reports: figures are made up, and judged by the real rules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cells import NOON, a_cell, a_summary, an_slo, steady_windows

from pytest_openenv_scale.analysis.run import Run
from pytest_openenv_scale.config.limits import Slo
from pytest_openenv_scale.metrics.percentiles import PhaseStats
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.cell import ClientFinding
from pytest_openenv_scale.results.manifest import FORMAT, Manifest, SweepRecord, Writer
from pytest_openenv_scale.results.outcome import ErrorCount
from pytest_openenv_scale.verdict.sweep import SweepView, view_sweep

TEST = "test_scale.py::test_holds_256_sessions"
BUSY = "the client's CPU was 98 % busy"


def latency(p50: float, p99: float, count: int) -> PhaseStats:
    return PhaseStats(count, p50 / 2, p50, p99, p50, p99, p99, p99)


def measured(batch: int, *, repetition=1, connect=(0.009, 0.014), failed=0, slower=1.0, **fields) -> CellSummary:
    good = batch - failed
    up, worst = connect
    phases = {
        "queue": latency(0.0004, 0.002, good),
        "connect": latency(up, worst * slower, good),
        "reset": latency(up / 4, worst / 4, good),
        "hold": latency(0.2, 0.3, good),
        "step": latency(1.002, 1.01 * slower, good),
        "total": latency(1.002 + up, 1.01 * slower + worst, good),
        "overhead": latency(0.002 + up, 0.01 + worst, good),
    }
    errors = (ErrorCount("reset", "capacity", "CAPACITY_REACHED", failed, "Server at capacity: 100/100 sessions"),)
    return a_summary(
        batch,
        failed=failed,
        repetition=repetition,
        cell=replace(a_cell(batch), test=TEST, target="local:app:app,server=uvicorn"),
        errors=errors if failed else (),
        phases=phases,
        wall_s=1.2,
        requests_per_second=good / (1.03 * slower),
        effective_concurrency=good * 0.97,
        **fields,
    )


def a_sweep(*summaries: CellSummary, batches: tuple[int, ...] = (), slo: Slo | None = None, **record) -> SweepView:
    """A sweep of one curve: of `batches`, or of those measured."""
    curve = replace(
        summaries[0].cell.curve if summaries else a_cell().curve,
        batches=batches or tuple(sorted({summary.batch for summary in summaries})),
    )
    described = SweepRecord(
        **{
            "sweep_id": "sweep",
            "test": TEST,
            "target": "local:app:app,server=uvicorn",
            "infrastructure": curve.infrastructure,
            "curves": (curve,),
            "slos": (slo or an_slo(success=0.95),),
            "steps": 1,
            "arrival": "hold",
            "reps": max((summary.repetition for summary in summaries), default=1),
            "timeout_s": 120.0,
            "cores": 2,
            "limits": {"workers": 2, "server": "uvicorn"},
            "startup_s": 0.812,
            "rerun": f"pytest '{TEST}' --openenv-target local:app:app,server=uvicorn",
            "status": "complete",
            "started_at": NOON,
            **record,
        }
    )
    return view_sweep(described, summaries)


def refused_sweep(reps=3) -> SweepView:
    """The sweep of the design's example: 2 workers × 100 sessions refuse the rest of 256."""
    log = (
        'INFO:     127.0.0.1:50114 - "WebSocket /ws" [accepted]\nINFO:     connection open\nINFO:     connection closed'
    )
    slower = (1.0, 1.02, 1.05)
    failures = (56, 54, 56)
    summaries = [
        measured(batch, repetition=n + 1, connect=connect, slower=slower[n])
        for batch, connect in ((32, (0.009, 0.014)), (128, (0.031, 0.052)))
        for n in range(reps)
    ]
    summaries += [
        measured(
            256,
            repetition=n + 1,
            connect=(0.06, 0.108),
            slower=slower[n],
            failed=failures[n],
            limits={"workers": 2},
            log_tail=log,
        )
        for n in range(reps)
    ]
    return a_sweep(*summaries, slo=an_slo(max_batch=256, success=0.95))


def doubtful_sweep() -> SweepView:
    """A sweep the client was too slow for, on two hosts."""
    busy = ClientFinding("cpu", BUSY)
    return a_sweep(
        *(
            measured(batch, hosts=2, host_counts={"a:1": batch // 2, "b:1": batch // 2}, findings=findings)
            for batch, findings in ((8, ()), (64, (busy,)))
        ),
        slo=an_slo(max_batch=64, hosts=2),
        notes=("no openenv.yaml in the root: the built-in environment was measured",),
    )


def steady(
    slots: int, *, sessions: int | None = None, failed=3, windows=None, arrival="steady=60,ramp=10", **fields
) -> CellSummary:
    """A repetition in which each slot played session after session for a minute; the ramp is not judged."""
    measured_windows = steady_windows(slots=slots) if windows is None else windows
    opened = [window.open_least for window in measured_windows if window.judged]
    sessions = 9 * slots if sessions is None else sessions
    base = measured(sessions, failed=failed, **fields)
    return replace(
        base,
        cell=replace(base.cell, batch=slots, arrival=arrival, think="exponential=2"),
        requests_per_second=(sessions - failed) / 50,
        peak_concurrency=slots,
        unjudged=slots + 40,
        open_least=min(opened, default=None),
        windows=measured_windows,
    )


def steady_sweep() -> SweepView:
    """A steady state that 64 slots hold, and 128 do not."""
    slo = an_slo(success=0.95)
    return a_sweep(steady(64), steady(128, failed=97), slo=slo, arrival="steady=60,ramp=10", think_mean_s=2.0)


def a_manifest(*sweeps: SweepView, status="complete", **fields) -> Manifest:
    usual = {
        "format": FORMAT,
        "run_id": "20261121T120000.000Z-3fa9",
        "status": status,
        "started_at": NOON,
        "writer": Writer(1, "ci-7"),
        "finished_at": NOON.replace(minute=4) if status == "complete" else None,
        "command": ("pytest", "-m", "scaling"),
        "note": "before the rewrite",
        "fingerprint": {
            "hostname": "ci-7",
            "machine": {"cpu": "Xeon | 2.4 GHz", "cores": 2, "usable_cores": 2, "memory_bytes": 8_000_000_000},
            "os": {"name": "Linux-6.1"},
            "python": {"version": "3.11.9", "implementation": "CPython"},
            "packages": {"pytest": "8.4.0", "aiohttp": "3.12.0"},
            "git": {"commit": "0123456789abcdef", "branch": "main", "dirty": True},
        },
        "sweeps": tuple(sweep.record for sweep in sweeps),
    }
    return Manifest(**{**usual, **fields})


def a_run(path: Path, *sweeps: SweepView, status="complete", problems=(), **fields) -> Run:
    all_sweeps = sweeps or (refused_sweep(), doubtful_sweep())
    return Run(path, a_manifest(*all_sweeps, status=status, **fields), all_sweeps, tuple(problems))
