"""Sweeps for tests of reports: judged as a run would be, with figures made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cells import NOON, a_cell, a_summary, an_slo

from pytest_openenv_scale.analysis.run import Run
from pytest_openenv_scale.metrics.percentiles import PhaseStats
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.manifest import FORMAT, Manifest, SweepRecord, Writer
from pytest_openenv_scale.results.outcome import Breach, CellVerdict, CurveVerdict, ErrorCount, Outcome, Reason, Refusal
from pytest_openenv_scale.verdict.sweep import CurveView, SweepView

TEST = "test_scale.py::test_holds_256_sessions"


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


def a_sweep(
    *summaries: CellSummary,
    cells: tuple[CellVerdict, ...] | None = None,
    outcome=Outcome.MET,
    batches: tuple[int, ...] | None = None,
    max_batch: int | None = None,
    refused: tuple[Refusal, ...] = (),
    reasons: tuple[Reason, ...] = (Reason("verdict", "SLO met: success ≥ 95 %"),),
    stop_reason: str | None = None,
    slo=None,
    reps=1,
    **record,
) -> SweepView:
    """A sweep of one curve."""
    measured_batches = tuple(sorted({summary.batch for summary in summaries}))
    curve = replace(summaries[0].cell.curve if summaries else a_cell().curve, batches=batches or measured_batches)
    cells = tuple(CellVerdict(batch, True) for batch in measured_batches) if cells is None else cells
    slo = slo or an_slo(success=0.95)
    breaches = [breach for cell in cells for breach in cell.breaches]
    failing = [cell.batch for cell in cells if cell.passed is False]
    verdict = CurveVerdict(
        curve=curve,
        outcome=outcome,
        max_batch=max_batch,
        max_batch_per_core=max_batch / 2 if max_batch else None,
        cells=cells,
        first_breach=breaches[0] if breaches else None,
        feasible_max=max_batch,
        infeasible_min=min(failing, default=None),
        refused=refused,
        reasons=reasons,
        stop_reason=stop_reason,
        slo=slo,
        repetitions=reps,
    )
    described = SweepRecord(
        **{
            "sweep_id": "sweep",
            "test": TEST,
            "target": "local:app:app,server=uvicorn",
            "infrastructure": curve.infrastructure,
            "curves": (curve,),
            "slos": (slo,),
            "steps": 1,
            "arrival": "hold",
            "reps": reps,
            "timeout_s": 120.0,
            "cores": 2,
            "limits": {"workers": 2, "server": "uvicorn"},
            "startup_s": 0.812,
            "rerun": f"pytest '{TEST}' --openenv-target local:app:app,server=uvicorn",
            "status": "complete",
            "outcome": outcome,
            "started_at": NOON,
            **record,
        }
    )
    return SweepView(described, (CurveView(curve, summaries, verdict),), outcome)


def refused_sweep(reps=3) -> SweepView:
    """The sweep of the design's example: 2 workers × 100 sessions refuse the rest of 256."""
    log = (
        'INFO:     127.0.0.1:50114 - "WebSocket /ws" [accepted]\nINFO:     connection open\nINFO:     connection closed'
    )
    slower = (1.0, 1.02, 1.05)
    lost = (56, 54, 56)
    summaries = [
        measured(batch, repetition=n + 1, connect=connect, slower=slower[n])
        for batch, connect in ((32, (0.009, 0.014)), (128, (0.031, 0.052)))
        for n in range(reps)
    ]
    summaries += [
        measured(256, repetition=n + 1, connect=(0.06, 0.108), slower=slower[n], failed=lost[n], log_tail=log)
        for n in range(reps)
    ]
    where = " of 3" if reps > 1 else ""
    breaches = tuple(
        Breach(
            256,
            n + 1,
            "success",
            None,
            None,
            1 - lost[n] / 256,
            0.95,
            f"success 78.1 % < 95 % at batch 256{f', repetition {n + 1}{where}' if where else ''} "
            f"({lost[n]} of 256 failed: {lost[n]} capacity in reset)",
        )
        for n in range(reps)
    )
    got = f"got 128 in {reps} of {reps} repetitions" if reps > 1 else "got 128"
    return a_sweep(
        *summaries,
        cells=(CellVerdict(32, True), CellVerdict(128, True), CellVerdict(256, False, breaches)),
        outcome=Outcome.MISSED,
        max_batch=128,
        refused=(
            Refusal(
                "capacity",
                56,
                256,
                "CAPACITY_REACHED at 200 sessions = 2 workers × 100",
                "MAX_CONCURRENT_ENVS ≥ 128 per worker (2 workers)",
            ),
        ),
        reasons=(
            Reason("verdict", f"SLO missed: max_batch ≥ 256, {got}"),
            Reason("limit", breaches[0].text),
        ),
        slo=an_slo(max_batch=256, success=0.95),
        reps=reps,
    )


def doubtful_sweep() -> SweepView:
    """A sweep the client was too slow for, on two hosts."""
    text = "the client's CPU was 98 % busy at batch 64"
    summaries = tuple(measured(batch, hosts=2, host_counts={"a:1": batch // 2, "b:1": batch // 2}) for batch in (8, 64))
    return a_sweep(
        *summaries,
        cells=(CellVerdict(8, True), CellVerdict(64, None, (), (Reason("client", text),))),
        outcome=Outcome.INCONCLUSIVE,
        max_batch=8,
        reasons=(
            Reason("verdict", f"SLO inconclusive: max_batch ≥ 64 is not decided, got 8: {text}"),
            Reason("client", text),
            Reason("fallback", "no openenv.yaml in the root: the built-in environment was measured"),
        ),
        slo=an_slo(max_batch=64, hosts=2),
    )


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
    found = sweeps or (refused_sweep(), doubtful_sweep())
    return Run(path, a_manifest(*found, status=status, **fields), found, tuple(problems))
