"""Extension points: hooks that a conftest.py or another plugin may implement.

Every hook takes its arguments by name and may leave out those it does not need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_openenv_scale.analysis.run import Run
    from pytest_openenv_scale.config.plan import Cell
    from pytest_openenv_scale.config.settings import Settings
    from pytest_openenv_scale.config.workload import Workload
    from pytest_openenv_scale.core.endpoint import Endpoint, Target
    from pytest_openenv_scale.core.target_spec import TargetSpec
    from pytest_openenv_scale.metrics.summary import CellSummary
    from pytest_openenv_scale.targets import TargetContext


@pytest.hookspec(firstresult=True)
def pytest_openenv_scale_target(
    spec: TargetSpec, settings: Settings, largest_batch: int, context: TargetContext
) -> Target | None:
    """Return the target for a specification of one's own, or None to leave it to others.

    `spec` is what `--openenv-target` names: `spec.name`, `spec.argument` (text or None) and `spec.options`
    (pairs of text). `largest_batch` is the most sessions that any selected cell asks for at once; servers,
    backlogs and breakers are sized to it. `context` is what built-in targets get: `context.root` (the folder of the
    `openenv.yaml` that is nearest to the test, else pytest's root), `headers`, `network` (how the server is
    reached, for the endpoint too), `modes`, `run_id` (None where nothing is measured), `log_path` (None: none is kept)
    and `show_progress` and `show_status`, which show a line that stays and what was heard last while the target starts.

    The target is a synchronous context manager: entering starts or finds the server and gives its `Endpoint`,
    leaving stops what was started. A `TargetError` raised while entering fails the tests with its message. The
    first implementation that returns a target wins, before the built-in ones. It may be asked before anything is
    selected too, so that a `TargetError` about its specification ends the run at once: reach nothing before entering.

    A target may have two more methods, for `openenv-scale show -p MODULE SPEC` and `openenv-scale gc -p MODULE SPEC`,
    where MODULE has this hook (`settings` is not known there): `describe()` returns pairs of a title and a text on
    what would be started, and `collect(dry_run)` removes what killed runs left, or only looks, and returns a line
    for each; it raises a `TargetError` where it cannot look.

    Example: `--openenv-target staging,port=8000` measures what runs on that port.

    ```python
    from pytest_openenv_scale import Endpoint


    class Staging:
        def __init__(self, spec):
            self.spec = str(spec)
            self.port = spec.option("port") or "8000"

        def __enter__(self):
            url = f"http://127.0.0.1:{self.port}"
            return Endpoint(urls=(url,), label="staging", target=self.spec, cores=4)

        def __exit__(self, *error):
            pass


    def pytest_openenv_scale_target(spec):
        return Staging(spec) if spec.name == "staging" else None
    ```
    """


@pytest.hookspec(firstresult=True)
def pytest_openenv_scale_workload(endpoint: Endpoint) -> Workload | None:
    """Return what sessions say to a server, or None to leave it to the options and the server's `/schema`.

    `actions` holds one action for every step, or one per step; the text "$wait" in an action stands for
    the cell's wait in seconds. With `waits=False` the curve has no wait axis.

    Example: the same reset data for every session.

    ```python
    from pytest_openenv_scale import Workload


    def pytest_openenv_scale_workload(endpoint):
        return Workload(actions=({"wait_seconds": "$wait"},), reset={"seed": 7})
    ```
    """


@pytest.hookspec
def pytest_openenv_scale_cell_done(cell: Cell, summary: CellSummary) -> None:
    """Called after every repetition of a cell, as soon as it is measured and stored.

    `cell.batch` counts sessions and `cell.wait` is seconds (None where the environment takes no wait). The
    times in `summary` are seconds, `success_rate` is a fraction (None where nothing was measured). Runs
    between cells, so what it costs delays the next cell but is in no latency. Of a repetition that was measured again,
    as the client alone left it in doubt, it is called for the last attempt (`summary.attempt`).

    Example: a file that grows by a line per cell.

    ```python
    from pathlib import Path


    def pytest_openenv_scale_cell_done(cell, summary):
        with Path("cells.txt").open("a") as file:
            file.write(f"{cell.mode} batch {cell.batch}: {summary.successful} of {summary.asked}\\n")
    ```
    """


@pytest.hookspec
def pytest_openenv_scale_report(run: Run) -> None:
    """Add a report of one's own once a run is complete, in the process that controls the run.

    `run.path` is the run's directory and `run.sweeps` what was measured, one per test and target; all times
    in it are seconds and all shares fractions.

    Example: the outcome in a file beside the other reports.

    ```python
    def pytest_openenv_scale_report(run):
        (run.path / "outcome.txt").write_text(str(run.outcome))
    ```
    """
