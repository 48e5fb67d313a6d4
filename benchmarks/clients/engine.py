"""This project's engine, as a sweep drives it: load process, rows to the parent, one sealed Parquet part.

python engine.py SESSIONS WAIT PORT ARRIVAL STEPS [MODULE:FUNCTION]

The function makes the actions; without one, all steps are one message, known beforehand.
"""

from __future__ import annotations

import sys
import tempfile
from functools import cache
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.compute as pc
from figures import resident_kib, step_over, tell

from pytest_openenv_scale.config.plan import Cell
from pytest_openenv_scale.config.workload import Workload
from pytest_openenv_scale.load.ipc import CellRequest
from pytest_openenv_scale.load.runner import CellResult, LoadGenerator, LoadProgress
from pytest_openenv_scale.results.cell import CellMeta
from pytest_openenv_scale.results.spool import PartWriter

TIMEOUT_S = 60.0


def main() -> None:
    """Run one cell in one load process and record it."""
    sessions, wait, port, arrival, steps, *function = sys.argv[1:]
    cell = Cell("benchmark", "null-server", "null-server", "ws", float(wait), int(sessions), int(steps), arrival)
    workload = Workload(function=function[0]) if function else Workload(({"wait_seconds": "$wait"},))
    order = CellRequest(cell, 1, (f"http://127.0.0.1:{port}",), {}, workload, TIMEOUT_S)
    resident: list[int] = []

    def on_progress(progress: LoadProgress) -> None:
        resident.append(resident_kib(load_process()))

    with LoadGenerator(1) as generator:
        result = generator.run_cell(order, on_progress)
        peak = resident_kib(load_process(), peak=True)
    table = record(result, cell)
    latencies = pc.list_flatten(table["step_latencies"]).to_pylist()
    tell(
        ok=pc.sum(table["success"]).as_py(),
        held_kib=max(resident, default=None),
        peak_kib=peak,
        **step_over(latencies, cell.wait or 0.0),
    )


def record(result: CellResult, cell: Cell) -> pa.Table:
    """Do with a cell's rows what a sweep does: they are sealed as a part. Return them as a table."""
    meta = CellMeta("benchmark", "benchmark", cell, 1, result.wall_s, result.started_at, findings=result.findings)
    with tempfile.TemporaryDirectory(prefix="openenv-scale-bench-") as folder, PartWriter(Path(folder), meta) as writer:
        writer.write(result.rows)
        return writer.seal(meta).table()


@cache
def load_process() -> int:
    """Return the process id of the one load process; looked up once, since a look-up costs as much as ten sessions."""
    (only,) = psutil.Process().children()
    return only.pid


if __name__ == "__main__":
    main()
