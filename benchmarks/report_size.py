"""What a report of very many sessions costs: seconds and peak memory of `openenv-scale report` on a run of N rows.

The run is made up and written as the project does, once as many parts and once as a single huge one.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.machine import describe_machine
from harness.problem import Problem
from harness.program import note, options, positive, print_table, start, write_json

REPETITIONS = 10
WAIT_S = 1.0
TILE = 1_000_000
"""So many rows are made up at once."""


@dataclass(frozen=True)
class Cost:
    """What the report of one run took, in seconds of wall clock and CPU and bytes of memory."""

    rows: int
    parts: int
    stored_bytes: int
    wall_s: float
    cpu_s: float
    peak_bytes: int


def main() -> None:
    """Write the runs, report each, and print what that took."""
    parser = options(__doc__ or "")
    parser.add_argument("--rows", type=positive, default=10_000_000, help="sessions of a run (default: %(default)s)")
    parser.add_argument(
        "--part", type=positive, default=10_000, help="sessions of each of many parts (default: %(default)s)"
    )
    parser.add_argument("--formats", default="md", help="as of openenv-scale report (default: %(default)s)")
    parser.add_argument("--shapes", default="many,one", help="of many and one (default: %(default)s)")
    args = parser.parse_args()
    sizes = {"many": args.part, "one": args.rows}
    unknown = [name for name in args.shapes.split(",") if name not in sizes]
    if unknown:
        raise Problem(f"there is no shape {unknown[0]!r}: write many, one or both with a comma")
    print(describe_machine())
    costs = {name: one_shape(args.rows, sizes[name], args.formats) for name in args.shapes.split(",")}
    rows = [
        [
            name,
            f"{cost.rows:,}",
            f"{cost.parts:,}",
            f"{cost.stored_bytes / 1e6:,.0f}",
            f"{cost.wall_s:.1f}",
            f"{cost.cpu_s:.1f}",
            f"{cost.peak_bytes / 2**20:,.0f}",
        ]
        for name, cost in costs.items()
    ]
    print_table(["parts", "rows", "how many", "stored MB", "wall s", "CPU s", "peak MiB"], rows)
    print("target: ten million rows in under 60 s and 1,024 MiB")
    write_json(args.json, {name: asdict(cost) for name, cost in costs.items()})


def one_shape(rows: int, part: int, formats: str) -> Cost:
    """Write a run in parts of one size and report it.

    Raises:
        Problem: it could not be written or reported.
    """
    with tempfile.TemporaryDirectory(prefix="openenv-scale-bench-") as folder:
        results = Path(folder) / "results"
        note(f"writing {rows:,} rows in parts of {part:,}")
        # In a process of its own: a child's peak is never below what its parent held when it was started.
        writer = multiprocessing.get_context("spawn").Process(target=write_run, args=(results, rows, part))
        writer.start()
        writer.join()
        if writer.exitcode:
            raise Problem(f"the run could not be written: the writer ended with code {writer.exitcode}")
        stored = [path.stat().st_size for path in results.rglob("*.parquet") if path.is_file()]
        command = ["-m", "pytest_openenv_scale", "report", "--results", str(results), "--formats", formats]
        note(f"openenv-scale {' '.join(command[2:])}")
        began = time.monotonic()
        quiet = os.open(os.devnull, os.O_RDWR)
        child = os.posix_spawn(
            sys.executable,
            [sys.executable, *command],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, quiet, 0), (os.POSIX_SPAWN_DUP2, quiet, 1)],
        )
        os.close(quiet)
        _, status, used = os.wait4(child, 0)
        wall = time.monotonic() - began
        if code := os.waitstatus_to_exitcode(status):
            raise Problem(f"openenv-scale report ended with code {code}")
    return Cost(rows, len(stored), sum(stored), wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def write_run(results: Path, rows: int, part: int) -> None:
    """Write a run of made-up sessions in parts of `part` rows, ten repetitions of each batch."""

    from pytest_openenv_scale.config.limits import Slo
    from pytest_openenv_scale.config.plan import Curve
    from pytest_openenv_scale.results.cell import CellMeta
    from pytest_openenv_scale.results.manifest import SweepRecord
    from pytest_openenv_scale.results.run_directory import RunDirectory

    parts = -(-rows // part)
    repetitions = min(REPETITIONS, parts)
    batches = tuple(part + at for at in range(-(-parts // repetitions)))
    curve = Curve("bench.py::test_size", "local", "local-uvicorn", "ws", WAIT_S, 1, "hold", batches)
    record = SweepRecord(
        "sweep",
        curve.test,
        curve.target,
        curve.infrastructure,
        (curve,),
        (Slo(),),
        1,
        "hold",
        repetitions,
        120.0,
        cores=2,
    )
    with RunDirectory.create(results) as run:
        run.begin(command=("report_size.py",))
        run.begin_sweep(record)
        rows_left = rows
        for number in range(parts):
            size = min(part, rows_left)
            rows_left -= size
            cell = curve.cells[number // repetitions]
            sizes = [min(TILE, size - at) for at in range(0, size, TILE)]
            tiles = (made_up(count, at * TILE, seed=number * 1_000 + at) for at, count in enumerate(sizes))
            repetition = number % repetitions + 1
            meta = CellMeta(run.run_id, "sweep", cell, repetition, 5.0, datetime.now(UTC), cores=2)
            write_part(run.parts / f"{cell.id}-r{repetition}.parquet", tiles, meta)
        run.finish_sweep("sweep", "complete")
        run.finish("complete")


def write_part(path: Path, tables: Iterable[Any], meta: Any) -> None:
    """Write tables of the project's schema as the project's writer does, which takes sessions one by one."""
    import pyarrow.parquet as pq

    from pytest_openenv_scale.results.parts import BATCH_ROWS, META_KEY, SCHEMA

    schema = SCHEMA.with_metadata({META_KEY: json.dumps(meta.to_json()).encode()})
    with pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=BATCH_ROWS)


def made_up(count: int, first: int, *, seed: int) -> Any:
    """Return sessions as a table of the project's schema: 3 % of them found the server full."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from pytest_openenv_scale.results.parts import SCHEMA

    draws = [pc.random(count, initializer=(seed * 4 + at) % 2**31) for at in range(4)]
    good = pc.greater(draws[0], 0.03)
    number = pa.array(range(first, first + count), pa.int64())

    def where_good(values: Any) -> Any:
        return pc.if_else(good, values, pa.scalar(None, values.type))

    def text(value: str) -> Any:
        return pc.if_else(good, pa.scalar(None, pa.string()), pa.scalar(value))

    connect = pc.multiply(draws[1], 0.2)
    reset = pc.multiply(draws[2], 0.1)
    step = pc.add(WAIT_S, pc.power(draws[3], 8.0))
    up = pc.add(connect, reset)
    host = pc.binary_join_element_wise("node", pc.cast(pc.bit_wise_and(number, 3), pa.string()), "")
    steps = where_good(step)
    offsets = pa.concat_arrays(
        [pa.array([0], pa.int32()), pc.cast(pc.cumulative_sum(pc.cast(good, pa.int32())), pa.int32())]
    )
    columns: dict[str, Any] = {
        "request_id": number,
        "timestamp": pa.array([0], pa.int64()).cast(pa.timestamp("us", "UTC")).take(pa.array([0] * count)),
        "due_s": pa.repeat(0.0, count),
        "start_s": pa.repeat(0.0, count),
        "connected_s": connect,
        "reset_done_s": where_good(up),
        "closed_s": pc.if_else(good, pc.add(pc.max_element_wise(up, 0.31), step), up),
        "queue_latency": pa.repeat(0.0, count),
        "connect_latency": connect,
        "reset_latency": where_good(reset),
        "hold_latency": where_good(pc.subtract(0.31, up)),
        "step_latency": steps,
        "step_latencies": pa.ListArray.from_arrays(offsets, step.filter(good)),
        "total_latency": where_good(pc.add(up, step)),
        "waited_seconds": where_good(pa.repeat(WAIT_S, count)),
        "wait_requested": pa.repeat(WAIT_S, count),
        "steps_done": pc.cast(good, pa.int32()),
        "pid": where_good(pc.add(1_000, pc.bit_wise_and(number, 31))),
        "session_hash": where_good(pc.utf8_lpad(pc.cast(number, pa.string()), 12, "0")),
        "host_url": where_good(host),
        "success": good,
        "error_phase": text("reset"),
        "error_type": text("capacity"),
        "error_code": text("CAPACITY_REACHED"),
        "error_message": text("Server at capacity: 100/100 sessions"),
    }
    arrays = [
        columns[field.name] if field.name in columns else pa.nulls(count, field.type)
        for field in (SCHEMA.field(name) for name in SCHEMA.names)
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


if __name__ == "__main__":
    start(main)
