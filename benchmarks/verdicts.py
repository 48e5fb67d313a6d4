"""How often a verdict is false or cannot be given: servers that meet their limits, and servers that do not.

Each run is a pytest run as a user starts it, against the built-in environment, on this machine as it is and with a
program that never rests on every core. Sound: 16 sessions of three steps succeed within 2 s. Full: the server takes 8.
Slow: a step may take 200 ms, and each takes 400.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import product
from statistics import median

from harness.machine import describe_machine
from harness.program import note, options, positive, print_table, start, write_json
from harness.pytest_run import judged_curve, sweep_command
from pytest_openenv_scale.metrics.certainty import success_interval

PATIENCE_S = 600.0
BATCH, STEPS, WAIT_S = 16, 3, 0.1
OUTCOMES = ("met", "missed", "inconclusive")


@dataclass(frozen=True)
class Server:
    """A server and limits it is known to meet or to miss, in the modes in which it does."""

    name: str
    truth: str
    modes: tuple[str, ...] = ("ws", "http")
    target: str = "local:builtin,workers=1"
    limits: str = "success>=1,total_p99<=2s"
    action: str = '{"wait_seconds": "$wait"}'


SERVERS = (
    Server("sound", "met"),
    Server("full", "missed", modes=("ws",), target="local:builtin,workers=1,max_envs=8"),
    Server("slow", "missed", limits="success>=1,step_p99<=200ms", action='{"wait_seconds": 0.4}'),
)


@dataclass
class Tally:
    """The verdicts of all runs of one kind, their seconds, and how many attempts were set aside."""

    outcomes: Counter[str] = field(default_factory=Counter[str])
    seconds: list[float] = field(default_factory=list[float])
    set_aside: int = 0


def main() -> None:
    """Let the kinds take turns, run by run, and print the tally."""
    parser = options(__doc__ or "", runs=50)
    parser.add_argument("--again", metavar="N", default="3", help="as in --openenv-again (default: %(default)s)")
    parser.add_argument("--batch", type=positive, default=BATCH, help="sessions at once (default: %(default)s)")
    parser.add_argument(
        "--machine",
        choices=("quiet", "burnt", "both"),
        default="both",
        help="quiet: as it is, burnt: with a program that never rests on every core (default: %(default)s)",
    )
    args = parser.parse_args()
    print(describe_machine())
    machines = ("quiet", "burnt") if args.machine == "both" else (args.machine,)
    kinds = [(server, mode, machine) for machine, server in product(machines, SERVERS) for mode in server.modes]
    tallies = {kind: Tally() for kind in kinds}
    for _ in range(args.runs):
        for server, mode, machine in kinds:
            with burning(machine == "burnt"):
                judge(server, mode, args.batch, args.again, tallies[server, mode, machine])
    print(f"{args.runs} runs of each kind, batch {args.batch}, --openenv-again {args.again}")
    heads = ["server", "mode", "machine", *OUTCOMES, "false, at most", "set aside", "median s", "longest s"]
    print_table([*heads, ""], [[*row(*kind, tally), ""] for kind, tally in tallies.items()])
    figures = [
        {"server": server.name, "mode": mode, "machine": machine, **vars(tally)}
        for (server, mode, machine), tally in tallies.items()
    ]
    write_json(args.json, {"runs": args.runs, "batch": args.batch, "again": args.again, "kinds": figures})


@contextmanager
def burning(wanted: bool) -> Iterator[None]:
    """Keep every core busy, each with a program in a session of its own, so that it has a share of its own."""
    loop = "import os\nos.sched_setaffinity(0, {{{}}})\nprint(flush=True)\nwhile True: pass"
    with ExitStack() as stack:
        for core in sorted(os.sched_getaffinity(0)) if wanted else ():
            command = [sys.executable, "-c", loop.format(core)]
            burner = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
            stack.callback(burner.wait)
            stack.callback(burner.kill)
            assert burner.stdout is not None
            stack.enter_context(burner.stdout)
            burner.stdout.readline()
        yield


def judge(server: Server, mode: str, batch: int, again: str, tally: Tally) -> None:
    """Measure a server with pytest and note the verdict.

    Raises:
        Problem: pytest ended without a report, or not at all.
    """
    command = sweep_command(
        server.target,
        batches=batch,
        waits=f"{WAIT_S:g}",
        steps=STEPS,
        modes=mode,
        slo=server.limits,
        action=server.action,
        again=again,
    )
    began = time.monotonic()
    _, curve = judged_curve(command, PATIENCE_S)
    tally.outcomes[curve["outcome"]] += 1
    tally.seconds.append(time.monotonic() - began)
    tally.set_aside += len(curve["set_aside"])
    if curve["outcome"] != server.truth:
        note(f"{server.name} {mode}: {curve['headline']}")


def row(server: Server, mode: str, machine: str, tally: Tally) -> list[str]:
    """Return one line of the table; false verdicts with the upper end of their interval (95 %)."""
    runs = tally.outcomes.total()
    false = sum(count for outcome, count in tally.outcomes.items() if outcome not in (server.truth, "inconclusive"))
    return [
        server.name,
        mode,
        machine,
        *(str(tally.outcomes[outcome]) for outcome in OUTCOMES),
        f"{false}, {success_interval(false, runs)[1]:.1%}",
        str(tally.set_aside),
        f"{median(tally.seconds):.1f}",
        f"{max(tally.seconds):.1f}",
    ]


if __name__ == "__main__":
    start(main)
