"""Runs to compare, judged as real ones are, with figures made up."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from cells import NOON, a_cell, a_curve, a_summary, an_slo, stats
from report_samples import a_manifest, a_sweep, measured

from pytest_openenv_scale.analysis.run import Run
from pytest_openenv_scale.results.cell import ClientFinding
from pytest_openenv_scale.verdict.sweep import SweepView, view_sweep

TEST = "test_scale.py::test_it"
PHASES = ("connect", "reset", "step", "total", "overhead", "total_unqueued", "overhead_unqueued")


def a_judged_sweep(
    *batches: int,
    latency=(0.1,),
    fails=(),
    doubtful=(),
    planned: tuple[int, ...] = (),
    test=TEST,
    target="local",
    label="local-uvicorn",
    mode="ws",
    wait=1.0,
    arrival="hold",
    slo=None,
    counts=100,
    late=(),
    **record,
) -> SweepView:
    """One curve: every latency is `latency` seconds, one value per repetition; half the sessions of `fails` fail.

    `fails` has batches, or pairs of a batch and the repetition that fails; so has `doubtful`.
    HTTP answers of `late` batches were seen late.
    """
    cell = replace(a_cell(mode=mode, wait=wait, arrival=arrival, target=target), test=test, infrastructure=label)
    curve = replace(a_curve(*(planned or batches)), **{f: getattr(cell, f) for f in ("test", "target")})
    curve = replace(curve, infrastructure=label, mode=mode, wait=wait, arrival=arrival)
    finding = ClientFinding("cpu", "the load process was at 99 % CPU")
    summaries = [
        a_summary(
            batch,
            failed=batch // 2 + batch % 2 if batch in fails or (batch, number) in fails else 0,
            repetition=number,
            cell=replace(cell, batch=batch),
            phases={name: stats(seconds, counts) for name in PHASES},
            requests_per_second=batch / seconds,
            findings=(finding,)
            if batch in doubtful or (batch, number) in doubtful
            else (ClientFinding("http_lag", "HTTP answers were seen late"),)
            if batch in late
            else (),
        )
        for batch in batches
        for number, seconds in enumerate(latency, 1)
    ]
    usual = a_sweep(measured(4)).record
    sweep_record = replace(
        usual,
        test=test,
        target=target,
        infrastructure=label,
        curves=(curve,),
        slos=(slo or an_slo(success=0.95),),
        reps=len(latency),
        settings={"action": "default", "seed": 0, "until_done": False},
        **{"arrival": arrival, **record},
    )
    return view_sweep(sweep_record, summaries)


def a_measured_run(*sweeps: SweepView, day=0, path=Path("nowhere"), **manifest) -> Run:
    """A complete run of so many days after the first."""
    when = NOON + timedelta(days=day)
    record = a_manifest(
        *sweeps, **{"run_id": f"{when:%Y%m%dT%H%M%S}.000Z-{day:04d}", "started_at": when, "note": None, **manifest}
    )
    return Run(path, record, sweeps)


def a_pair(now: dict, *, then: dict | None = None, batches=(8, 32, 128)) -> tuple[Run, Run]:
    """A baseline and a newer run of one curve each, by what differs from the usual one."""
    sides = ({**(then or {})}, {**now})
    judged_sweeps = [a_judged_sweep(*side.pop("batches", batches), **side) for side in sides]
    return a_measured_run(judged_sweeps[0]), a_measured_run(judged_sweeps[1], day=1)
