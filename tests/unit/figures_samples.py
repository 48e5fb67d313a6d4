"""Studies for tests of figures: everything a figure may have to show, and the least."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cells import NOON, steady_windows
from report_samples import a_run, a_sweep, steady, steady_sweep
from study_samples import EVERYTHING, a_run_of, a_study, sample, stored_run

from pytest_openenv_scale.analysis.study import Study, join_runs, study_of
from pytest_openenv_scale.results.cell import ClientFinding
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckRecord, CheckResult
from pytest_openenv_scale.verdict.sweep import view_sweep


def every_kind() -> Study:
    """Seven infrastructures over ws and http, with failing batches and open ends."""
    return a_study(*EVERYTHING)


def in_doubt() -> Study:
    """Two infrastructures; batch 128 of the second was limited by the client, so that nothing is known beyond."""
    first = sample("local-hypercorn", {8: (1.0, 0.02), 32: (1.0, 0.04), 128: (0.6, 0.3)}, reps=2)
    second = sample("local-uvicorn", {8: (1.0, 0.01), 32: (1.0, 0.03), 128: (1.0, 0.08)}, target="local,server=uvicorn")
    run = a_run_of(first, second)
    sure, view = run.sweeps
    finding = ClientFinding("cpu", "a load process did not keep up")
    summaries = [replace(cell, findings=(finding,)) if cell.batch == 128 else cell for cell in view.summaries]
    return join_runs([replace(run, sweeps=(sure, view_sweep(view.record, summaries)))])


def one_point() -> Study:
    return a_study(sample("local-uvicorn", {64: (1.0, 0.03)}))


def replicas() -> Study:
    """One, two and four replicas of one target; the last is open."""

    def of(count: int, batches):
        return sample(
            f"envoy-local-replicas{count}", batches, target=f"envoy:replicas={count}", limits={"replicas": count}
        )

    return a_study(
        of(1, {8: (1.0, 0.02), 64: (1.0, 0.05), 128: (0.5, 0.2)}),
        of(2, {8: (1.0, 0.02), 64: (1.0, 0.25), 128: (0.6, 0.3)}),
        of(4, {8: (1.0, 0.02), 64: (1.0, 0.03), 128: (1.0, 0.06), 256: (1.0, 0.3)}),
    )


def many_long_names() -> Study:
    """Twelve infrastructures, half of them with names too long for a line, over batches from 1 to 16,384."""
    return a_study(
        *(
            sample(
                f"env-{at}.an-organisation-with-a-very-long-name.example/api/v{at}" if at % 2 else f"slurm-nodes{at}",
                {1: (1.0, 0.01), 64: (1.0, 0.02 * (at + 1)), 1024: (1 - 0.03 * at, 0.1 * (at + 1)), 16384: (0.0, 0.0)},
                target=f"local,workers={at + 1}",
                cores=None if at == 3 else at + 1,
            )
            for at in range(12)
        )
    )


def fine_grid() -> Study:
    """Two infrastructures over two waits at sixteen batches: more than a tile has room for its text in one line."""
    batches = {2**at: (1.0 if at < 12 else 0.7, 0.002 * 1.7**at) for at in range(15)} | {24_576: (0.0, 0.0)}
    curves = {("ws", wait): batches for wait in (0.1, 1.0)}
    first = sample("local-hypercorn", curves=curves)
    return a_study(first, sample("local-uvicorn", curves=curves, target="local,server=uvicorn"))


def dense_grid() -> Study:
    """One infrastructure at twenty-six batches: more than a tile has room for any figure."""
    batches = {100 * at: (1.0 if at < 20 else 0.5, 0.002 * at) for at in range(1, 27)}
    return a_study(sample("local-hypercorn", batches))


def steady_state() -> Study:
    """A steady state of a minute: 64 slots pass, 128 fail."""
    return study_of(a_run(Path("results"), steady_sweep()))


def steady_state_of_hours() -> Study:
    """A steady state of four hours, and an endurance check in which memory grows."""
    hours = steady(64, windows=steady_windows(seconds=14_400, ramp=60, width=60), arrival="steady=14400,ramp=60")
    series = {
        "at_s": tuple(5.0 * at for at in range(1, 25)),
        "step_p50_s": tuple(0.01 + 0.0002 * at for at in range(24)),
        "step_p99_s": tuple(0.02 + 0.001 * (at % 5) for at in range(24)),
        "rss_bytes": tuple(300e6 + 10e6 * at for at in range(24)),
    }
    result = CheckResult(CheckOutcome.MISSED, "memory grows", series=series)
    check = CheckRecord("test_it.py::test_soak", "local", "local-uvicorn", "endurance", result, NOON, 120.0)
    run = a_run(Path("results"), a_sweep(hours, think_mean_s=2.0))
    return study_of(replace(run, checks=(check,)))


def stored(folder: Path) -> Study:
    """Two infrastructures over two waits, with a row per session on disk."""
    curves = {
        ("ws", wait): {1: (1.0, 0.004), 8: (1.0, 0.011), 32: (1.0, 0.03), 128: (0.75, 0.12)} for wait in (0.1, 1.0)
    }
    return join_runs(
        [
            stored_run(
                folder,
                sample("local-hypercorn", curves=curves, reps=2),
                sample("local-uvicorn", curves=curves, target="local,server=uvicorn"),
                run_id="20261121T120000.000Z-00000000",
            )
        ]
    )
