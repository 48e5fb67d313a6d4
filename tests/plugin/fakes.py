"""A plugin for inner pytest runs: a target and a load generator that cost nothing, all between them real.

`--openenv-target fake` holds every batch; `fake,capacity=4` refuses the fifth session. Other keys: `broken=TEXT`
does not start, `left=TEXT` does not stop, `finding=cpu` makes the client the bottleneck, `seconds=0.2` is how long a
cell takes, `nowait=1` is an environment that cannot wait, `label=NAME`. What happens is kept in `events.txt`.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.unit.cells import a_failure, a_row

import pytest_openenv_scale.engine.sweep as sweep_module
import pytest_openenv_scale.engine.workload as workload_module
from pytest_openenv_scale import Endpoint
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.load import runner
from pytest_openenv_scale.results.cell import ClientFinding

LOG = "the end of the log"
"""What a target that does not start shows of it."""

_targets: dict[str, FakeTarget] = {}


def fake_events(folder: Path) -> list[str]:
    """What the fakes of a run in this folder did, in order."""
    path = folder / "events.txt"
    return path.read_text().splitlines() if path.exists() else []


def _say(text: str) -> None:
    with Path("events.txt").open("a") as file:
        file.write(f"{text}\n")


class FakeTarget:
    def __init__(self, spec, context) -> None:
        self.spec, self.largest = str(spec), context.largest_batch
        self.environment = "" if context.root == context.rootpath else f" in {context.root.name}"
        self.options = dict(spec.options)
        self.reset = context.reset

    def __enter__(self) -> Endpoint:
        if "broken" in self.options:
            raise TargetError(f"{self.options['broken']}\n{LOG}")
        reset = f" reset={dict(self.reset)}" if self.reset else ""
        _say(f"start {self.spec} largest={self.largest}{self.environment}{reset}")
        url = f"http://127.0.0.1:9/{len(_targets)}"
        _targets[url] = self
        return Endpoint(
            urls=(url,),
            label=self.options.get("label", "fake"),
            target=self.spec,
            cores=2,
            log_reader=lambda lines: "the server's last words",
        )

    def __exit__(self, *error: object) -> None:
        _say(f"stop {self.spec}{self.environment}")
        if "left" in self.options:
            raise TargetError(self.options["left"])


class FakeGenerator:
    def __init__(self, processes: int | None = None) -> None:
        pass

    def __enter__(self) -> FakeGenerator:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def run_cell(self, order, on_progress=None, on_rows=None) -> runner.CellResult:
        options = _targets[order.urls[0]].options
        if order.repetition:
            self._take_time(float(options.get("seconds", 0)), order.cell.batch, on_progress)
            _say(f"cell {order.cell.mode} {order.cell.wait} {order.cell.batch} reset={dict(order.workload.reset)}")
        capacity = int(options.get("capacity", 1_000_000))
        step = order.cell.wait or 0.001
        rows = [
            a_row(number, step=step, waited_seconds=step) if number < capacity else a_failure(number)
            for number in range(order.cell.batch)
        ]
        findings = (ClientFinding("cpu", "the load process was at 99 % CPU"),) if "finding" in options else ()
        return runner.CellResult(rows, 1.0, datetime.now(UTC), runner.ClientStats(), findings)

    def _take_time(self, seconds: float, batch: int, on_progress) -> None:
        ends = time.monotonic() + seconds
        while seconds and time.monotonic() < ends:
            time.sleep(0.02)
            if on_progress is not None:
                on_progress(runner.LoadProgress(batch, batch, 0, 0, seconds))


def _schema(url: str, headers: object, network: object) -> dict[str, object]:
    name = "move" if "nowait" in _targets[url].options else "wait_seconds"
    return {"type": "object", "properties": {name: {"type": "number"}}}


_patches = pytest.MonkeyPatch()


def pytest_configure() -> None:
    _patches.setattr(sweep_module, "LoadGenerator", FakeGenerator)
    # What is measured again does not wait for a machine that other tests keep busy: a minute, where nothing is real.
    _patches.setattr(sweep_module, "await_calm", lambda: True)
    _patches.setattr(workload_module, "action_schema", _schema)


def pytest_unconfigure() -> None:
    _patches.undo()


def pytest_openenv_scale_target(spec, context):
    return FakeTarget(spec, context) if spec.name == "fake" else None


@pytest.fixture
def crash():
    """Ends the process at once, as a segmentation fault would."""
    return lambda: os._exit(1)
