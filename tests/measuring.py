"""A sweep measured outside pytest: an endpoint, a few settings, and the sweep that comes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_openenv_scale.config.limits import Slo, make_limit
from pytest_openenv_scale.config.settings import Settings
from pytest_openenv_scale.config.workload import parse_action
from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.parsing import parse_arrival
from pytest_openenv_scale.core.target_spec import parse_target
from pytest_openenv_scale.engine.sweep import Observer, Sweep, measure_sweep
from pytest_openenv_scale.results.run_directory import RunDirectory

TEST = "test_scale.py::test_it"


def settings_of(
    batches: Sequence[int],
    *,
    wait: float = 0.0,
    waits: Sequence[float] = (),
    steps: int = 1,
    arrival: str = "hold",
    timeout: float = 30.0,
    reps: int = 1,
    reset: Mapping[str, Any] | None = None,
    action: Mapping[str, Any] | None = None,
    modes: Sequence[str] = ("ws",),
    **others: Any,
) -> Settings:
    return Settings(
        targets=(parse_target("local"),),
        batches=tuple(batches),
        waits=tuple(waits) or (wait,),
        reps=reps,
        modes=tuple(modes),
        steps=steps,
        arrival=parse_arrival(arrival),
        timeout=timeout,
        action=None if action is None else parse_action(action),
        reset=reset,
        until_done=False,
        slo=(),
        inconclusive="fail",
        full_grid=False,
        processes=None,
        http_connections="session",
        seed=0,
        note=None,
        results=None,
        json=None,
        report=(),
        headers={},
        sources={},
        declared={},
        command_line={},
        **others,
    )


def measure(
    endpoint: Endpoint,
    results: Path,
    *batches: int,
    observer: Observer | None = None,
    slo=None,
    slo_wait: float | None = None,
    curves_of_run: int = 1,
    **settings,
) -> Sweep:
    """Measure one curve into a run of its own below `results`, or into the run that is there."""
    with RunDirectory.create(results) as run:
        run.begin()
        sweep = measure_sweep(
            endpoint=endpoint,
            test=TEST,
            settings=settings_of(batches, **settings),
            slos=(Slo(tuple(make_limit(name, value) for name, value in (slo or {}).items()), slo_wait),),
            run=run,
            observer=observer or Observer(),
            curves_of_run=curves_of_run,
        )
        run.finish("complete")
    return sweep
