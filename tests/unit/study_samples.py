"""Studies for tests of tables, figures, findings and comparisons: made up, but judged by the real rules.

`a_study()` has the shape of a study over every kind of infrastructure; `a_study(sample(...), ...)` has only what a test
is about. `stored_run(folder, ...)` writes a run with rows to disk, for what reads single sessions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cells import NOON, a_summary, an_slo
from report_samples import a_manifest, latency

from pytest_openenv_scale.analysis.run import Run, load_run
from pytest_openenv_scale.analysis.study import Study, join_runs
from pytest_openenv_scale.config.limits import Slo
from pytest_openenv_scale.config.plan import Cell, Curve
from pytest_openenv_scale.core.endpoint import ServerSample
from pytest_openenv_scale.metrics.percentiles import PhaseStats
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.cell import CellMeta, ServerSamples, SessionRow
from pytest_openenv_scale.results.manifest import SweepRecord
from pytest_openenv_scale.results.outcome import ErrorCount, WarmUp
from pytest_openenv_scale.results.run_directory import RunDirectory
from pytest_openenv_scale.verdict.sweep import SweepView, view_sweep

Batches = Mapping[int, tuple[float, float]]
"""What a curve measured: batch → share of sessions that succeeded, overhead p99 in seconds."""

HEALTHY: Batches = {1: (1.0, 0.01), 8: (1.0, 0.02), 32: (1.0, 0.05), 128: (1.0, 0.07)}


@dataclass(frozen=True)
class Sample:
    """One target and what was measured on it: (mode, wait) → batches."""

    infrastructure: str
    curves: Mapping[tuple[str, float | None], Batches]
    target: str = "local"
    test: str = "test_scale.py::test_it"
    cores: int | None = 2
    hardware: str | None = None
    hosts: int | None = 1
    limits: Mapping[str, str | int] = field(default_factory=dict)
    startup_s: float | None = 0.8
    rss_bytes: int | None = 300_000_000
    reps: int = 1
    arrival: str = "hold"
    slo: Slo = field(default_factory=Slo)
    episodes: bool | None = None
    """Whether sessions over HTTP were seen to hold an episode."""
    error: tuple[str, str, str | None, str] = ("reset", "capacity", "CAPACITY_REACHED", "Server at capacity")


def sample(
    infrastructure: str = "local-uvicorn", batches: Batches = HEALTHY, *, mode="ws", wait=1.0, **fields
) -> Sample:
    """A target with one curve; `curves=` gives several."""
    return Sample(infrastructure, fields.pop("curves", {(mode, wait): batches}), **fields)


UVICORN = sample(
    cores=8,
    rss_bytes=1_400_000_000,
    reps=3,
    curves={
        ("ws", 1.0): {
            32: (1.0, 0.05),
            128: (1.0, 0.07),
            512: (1.0, 0.33),
            2048: (0.965, 0.97),
            4096: (0.638, 2.2),
            8192: (0.369, 4.75),
        },
        ("ws", 5.0): {32: (1.0, 0.05), 512: (1.0, 0.4), 2048: (0.978, 1.13), 4096: (0.64, 2.4), 8192: (0.4, 4.8)},
        ("http", 1.0): {32: (1.0, 0.06), 128: (1.0, 0.2), 512: (0.92, 1.3), 2048: (0.31, 4.1)},
    },
)
DOCKER = sample(
    "local-docker",
    target="docker",
    cores=8,
    startup_s=3.1,
    curves={("ws", 1.0): {32: (1.0, 0.06), 512: (1.0, 0.36), 2048: (0.981, 1.17), 4096: (0.6, 2.3), 8192: (0.3, 5.0)}},
)
SPACE_BASIC = sample(
    "hf-spaces",
    target="spaces:USER/NAME",
    cores=2,
    hardware="cpu-basic",
    startup_s=92.0,
    rss_bytes=None,
    error=("connect", "timeout", None, "no answer within 120 s"),
    curves={
        ("ws", 1.0): {
            1: (1.0, 0.64),
            32: (1.0, 0.8),
            64: (1.0, 1.14),
            128: (1.0, 1.66),
            256: (0.33, 3.41),
            512: (0.0, 0.0),
        },
        ("http", 1.0): {1: (1.0, 0.7), 32: (1.0, 0.9), 64: (0.9, 2.1), 128: (0.2, 4.0)},
    },
)
SPACE_UPGRADE = sample(
    "hf-spaces",
    {1: (1.0, 0.6), 32: (1.0, 0.83)},
    target="spaces:USER/NAME,hardware=cpu-upgrade",
    cores=8,
    hardware="cpu-upgrade",
    startup_s=110.0,
    rss_bytes=None,
)
SLURM_SINGLE = sample(
    "slurm-single",
    {32: (1.0, 0.05), 512: (1.0, 0.45), 2048: (0.6, 2.0), 4096: (0.3, 4.1)},
    target="slurm",
    cores=48,
    limits={"nodes": 1},
    startup_s=12.0,
)
SLURM_2 = sample(
    "slurm-multi-nodes2",
    {32: (1.0, 0.05), 512: (1.0, 0.59), 2048: (1.0, 2.48), 4096: (1.0, 5.97), 16384: (0.9, 20.0)},
    target="slurm:nodes=2",
    cores=96,
    hosts=2,
    limits={"nodes": 2},
    startup_s=21.0,
)
SLURM_4 = sample(
    "slurm-multi-nodes4",
    {32: (1.0, 0.05), 512: (1.0, 0.3), 2048: (1.0, 1.2), 4096: (1.0, 2.97), 16384: (1.0, 11.8)},
    target="slurm:nodes=4",
    cores=192,
    hosts=4,
    limits={"nodes": 4},
    startup_s=25.0,
)
ENVOY_1, ENVOY_2, ENVOY_4 = (
    sample(
        f"envoy-local-replicas{replicas}",
        {
            32: (1.0, 0.05),
            64 * replicas: (1.0, 0.4),
            128 * replicas: (0.8, 1.9),
            256 * replicas: (0.4, 3.0),
        },
        target=f"envoy:replicas={replicas}",
        hosts=replicas,
        limits={"replicas": replicas},
    )
    for replicas in (1, 2, 4)
)
"""The same target with 1, 2 and 4 replicas: what the table of nodes is about."""

EVERYTHING = (UVICORN, DOCKER, SPACE_BASIC, SPACE_UPGRADE, SLURM_SINGLE, SLURM_2, SLURM_4)


def a_study(*samples: Sample, path: Path = Path("results")) -> Study:
    """A study of one run per infrastructure, each a minute after the last; of everything unless told otherwise."""
    return join_runs([a_run_of(sample, number=at, path=path) for at, sample in enumerate(samples or EVERYTHING)])


def a_run_of(*samples: Sample, number=0, path: Path = Path("results"), **manifest: Any) -> Run:
    """A run that measured these targets; it lies nowhere on disk."""
    views = tuple(a_view(sample, sweep_id=f"sweep{at}") for at, sample in enumerate(samples))
    run_id = manifest.pop("run_id", f"2026112{1 + number // 10}T12{number % 10:02d}00.000Z-{number:08x}")
    started = manifest.pop("started_at", NOON + timedelta(days=number // 10, minutes=number % 10))
    record = a_manifest(
        *views, run_id=run_id, started_at=started, finished_at=started + timedelta(minutes=4), **manifest
    )
    return Run(path / run_id, record, views)


def a_view(of: Sample, *, sweep_id="sweep") -> SweepView:
    """A sweep of one target, judged by the real rules."""
    record = _record(of, sweep_id)
    summaries = [
        replace(_summary(of, cell, success_and_overhead, repetition), sweep_id=sweep_id)
        for curve in record.curves
        for cell, success_and_overhead in zip(curve.cells, of.curves[curve.mode, curve.wait].values(), strict=True)
        for repetition in range(1, of.reps + 1)
    ]
    return view_sweep(record, summaries)


def _record(of: Sample, sweep_id: str, started_at: datetime = NOON) -> SweepRecord:
    curves = tuple(
        Curve(of.test, of.target, of.infrastructure, mode, wait, 1, of.arrival, tuple(batches))
        for (mode, wait), batches in of.curves.items()
    )
    return SweepRecord(
        sweep_id=sweep_id,
        test=of.test,
        target=of.target,
        infrastructure=of.infrastructure,
        curves=curves,
        slos=tuple(of.slo for _ in curves),
        steps=1,
        arrival=of.arrival,
        reps=of.reps,
        timeout_s=120.0,
        hardware=of.hardware,
        cores=of.cores,
        hosts=of.hosts,
        limits=of.limits,
        startup_s=of.startup_s,
        rerun=f"pytest '{of.test}' --openenv-target {of.target}",
        status="complete",
        started_at=started_at,
        warm_ups=(WarmUp("ws", same_episode=True), WarmUp("http", same_episode=of.episodes)),
    )


def _summary(of: Sample, cell: Cell, success_and_overhead: tuple[float, float], repetition: int) -> CellSummary:
    """One repetition; each is 2 % slower than the one before."""
    success, overhead = success_and_overhead
    overhead *= 1 + 0.02 * (repetition - 1)
    good = round(cell.batch * success)
    wait = cell.wait or 0.0
    wall = wait + 1.1 * overhead + 0.02
    phase, kind, code, message = of.error
    errors = (ErrorCount(phase, kind, code, cell.batch - good, message),) if good < cell.batch else ()
    summary = a_summary(
        cell.batch,
        failed=cell.batch - good,
        repetition=repetition,
        cell=cell,
        errors=errors,
        wall_s=wall,
        requests_per_second=good / wall,
        effective_concurrency=good * wait / wall,
        peak_concurrency=good,
        cores=of.cores,
        hardware=of.hardware,
        hosts_available=of.hosts,
        hosts=(of.hosts or 1) if good else None,
        host_counts=_spread(good, of.hosts or 1),
        limits=of.limits,
        server=_server(of, good),
        steps=good,
    )
    return replace(summary, phases=_phases(cell.mode, wait, overhead, good))


def _phases(mode: str, wait: float, overhead: float, good: int) -> dict[str, PhaseStats]:
    """Half of the overhead is connecting (over ws), the rest resetting and the step's share."""
    if not good:
        return {}
    connect = 0.5 * overhead if mode == "ws" else 0.0
    reset, slow = 0.3 * overhead, overhead - connect - 0.3 * overhead
    typical = 0.4  # p50 as a share of p99
    phases = {
        "queue": latency(0.0004, 0.001, good),
        "reset": latency(typical * reset, reset, good),
        "hold": latency(overhead / 3, overhead / 2, good),
        "step": latency(wait + typical * slow, wait + slow, good),
        "total": latency(wait + typical * overhead, wait + overhead, good),
        "overhead": latency(typical * overhead, overhead, good),
    }
    return phases | ({"connect": latency(typical * connect, connect, good)} if mode == "ws" else {})


def _spread(sessions: int, hosts: int) -> dict[str, int]:
    shares = [sessions // hosts + (1 if at < sessions % hosts else 0) for at in range(hosts)]
    return {f"node{at + 1}:8000": share for at, share in enumerate(shares) if share}


def _server(of: Sample, good: int) -> ServerSamples:
    if of.rss_bytes is None:
        return ServerSamples()
    first = ServerSample(at_s=0.0, processes=2, cpu_seconds=1.0, rss_bytes=of.rss_bytes, open_sessions=0)
    most = replace(first, at_s=1.0, cpu_seconds=1.0 + 0.003 * good, rss_bytes=of.rss_bytes + 60_000 * good)
    peak = replace(most, open_sessions=good)
    return ServerSamples(first=first, last=most, peak=peak, rising=(first, peak) if good else (first,))


def stored_run(results: Path, *samples: Sample, run_id: str | None = None, **begin: Any) -> Run:
    """Write a run with a row per session below `results`, and read it again; keep the batches small."""
    with RunDirectory.create(results, run_id) as directory:
        directory.begin(command=("pytest", "-m", "scaling"), **begin)
        for at, of in enumerate(samples or (sample(),)):
            record = directory.begin_sweep(_record(of, f"sweep{at}"))
            for curve in record.curves:
                for cell, success_and_overhead in zip(
                    curve.cells, of.curves[curve.mode, curve.wait].values(), strict=True
                ):
                    for repetition in range(1, of.reps + 1):
                        _store(directory, of, cell, success_and_overhead, repetition, record.sweep_id)
            directory.finish_sweep(record.sweep_id, "complete")
        directory.finish("complete")
    return load_run(directory.path)


def _store(
    directory: RunDirectory,
    of: Sample,
    cell: Cell,
    success_and_overhead: tuple[float, float],
    repetition: int,
    sweep: str,
) -> None:
    success, overhead = success_and_overhead
    rows = _rows(of, cell, round(cell.batch * success), overhead * (1 + 0.02 * (repetition - 1)))
    meta = CellMeta(
        run_id=directory.run_id,
        sweep_id=sweep,
        cell=cell,
        repetition=repetition,
        wall_s=max((row.closed_s or 0.0 for row in rows), default=0.0),
        started_at=NOON,
        hardware=of.hardware,
        cores=of.cores,
        hosts=of.hosts,
        limits=of.limits,
        server=_server(of, len(rows)),
    )
    directory.write_cell(rows, meta)


def _rows(of: Sample, cell: Cell, good: int, overhead: float) -> Sequence[SessionRow]:
    """Sessions whose overhead grows from the first to the last, as in a queue; the last ones fail."""
    rows: list[SessionRow] = []
    wait, hosts = cell.wait or 0.0, of.hosts or 1
    all_up = 0.8 * overhead
    for number in range(cell.batch):
        own = overhead * (0.1 + 0.9 * math.sqrt((number + 1) / cell.batch))
        connect = 0.5 * own if cell.mode == "ws" else None
        reset, step = 0.3 * own, wait + own - (connect or 0.0) - 0.3 * own
        up = (connect or 0.0) + reset
        row = SessionRow(
            request_id=number,
            process=0,
            started_at=NOON.timestamp(),
            due_s=0.0,
            start_s=0.0,
            connected_s=connect,
            reset_done_s=up,
            closed_s=max(all_up, up) + step,
            queue_latency=0.0,
            connect_latency=connect,
            reset_latency=reset,
            hold_latency=max(all_up - up, 0.0),
            step_latency=step,
            step_latencies=[step],
            resets=0.0,
            total_latency=own + wait,
            waited_seconds=wait,
            steps_done=1,
            pid=100 + number % 2,
            session_hash=f"{number:012x}",
            host_url=f"node{number % hosts + 1}:8000",
            success=True,
        )
        rows.append(row if number < good else _failed(row, of))
    return rows


def _failed(row: SessionRow, of: Sample) -> SessionRow:
    phase, kind, code, message = of.error
    nothing = dict.fromkeys(
        ("reset_done_s", "reset_latency", "hold_latency", "step_latency", "resets", "total_latency", "waited_seconds")
    )
    return row._replace(
        **nothing,
        step_latencies=[],
        steps_done=0,
        closed_s=row.reset_done_s,
        pid=None,
        session_hash=None,
        host_url=None,
        success=False,
        error_phase=phase,
        error_type=kind,
        error_code=code,
        error_message=message,
    )


__all__ = ["EVERYTHING", "Sample", "a_run_of", "a_study", "a_view", "an_slo", "sample", "stored_run"]
