"""Where the CPU of a load process goes: one cell run in this process under cProfile, against the null server.

The profiler itself slows Python calls and leaves system calls alone: read the order of the lines, not their seconds.
"""

from __future__ import annotations

import asyncio
import cProfile
import gc
import os
import pstats
import time

import uvloop

from harness.build import built_programs
from harness.machine import choose_cores, describe_cores, describe_machine, make_room
from harness.program import add_wait, options, positive, start
from harness.server import NullServer
from pytest_openenv_scale.config.plan import Cell
from pytest_openenv_scale.config.workload import Workload
from pytest_openenv_scale.load.ipc import BatchReady, CellRequest, Prepare
from pytest_openenv_scale.load.worker_share import WorkerShare


def main() -> None:
    """Run the cell and print its dearest functions."""
    parser = options(__doc__ or "", sessions=4000)
    add_wait(parser)
    parser.add_argument(
        "--steps", type=positive, default=1, metavar="K", help="steps of each session (default: %(default)s)"
    )
    parser.add_argument(
        "--arrival", choices=["burst", "hold"], default="burst", help="how sessions start (default: %(default)s)"
    )
    parser.add_argument(
        "--top", type=positive, default=30, metavar="N", help="functions to print (default: %(default)s)"
    )
    parser.add_argument(
        "--sort", choices=["tottime", "cumtime", "ncalls"], default="tottime", help="their order (default: %(default)s)"
    )
    args = parser.parse_args()
    make_room(args.sessions)
    cores = choose_cores()
    print(describe_machine(), describe_cores(cores), sep="\n")
    cell = Cell("benchmark", "null", "null", "ws", args.wait, args.sessions, args.steps, args.arrival)
    with built_programs() as programs, NullServer(programs.null_server, cores.server) as server:
        os.sched_setaffinity(0, {cores.client})
        profile = uvloop.run(profiled(cell, f"http://127.0.0.1:{server.port}"))
        print(f"the server saw {server.stop().sessions} sessions")
    stats = pstats.Stats(profile)
    stats.strip_dirs().sort_stats(args.sort).print_stats(args.top)


async def profiled(cell: Cell, url: str) -> cProfile.Profile:
    """Run a cell's only share as a load process does, and profile the time in which sessions live."""
    order = CellRequest(cell, 1, (url,), {}, Workload(({"wait_seconds": "$wait"},)), 60.0)
    loop = asyncio.get_running_loop()

    def tell(event: object) -> None:
        if isinstance(event, BatchReady):  # The parent's part: all are up, so let them step.
            loop.call_soon(share.release)

    share = WorkerShare(Prepare(order, 0, 1), tell)
    share.prepare()
    gc.collect()
    gc.freeze()
    gc.disable()
    share.start(time.perf_counter(), time.time())
    profile = cProfile.Profile()
    profile.enable()
    await share.run()
    profile.disable()
    return profile


if __name__ == "__main__":
    start(main)
