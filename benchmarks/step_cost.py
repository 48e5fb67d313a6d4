"""What one message round trip costs the client on sessions of many steps: CPU per step.

The server answers at once (wait 0), so that nothing but messages is left; the same sessions with a tenth of the steps
are subtracted, and with them everything that a session costs once. Recording the steps is in it. Of ours there are
three: one message for all steps, a function of session and step, and one that also sees the last observation.
"""

from __future__ import annotations

from dataclasses import asdict, replace

from harness.bench import Bench, interleaved, set_up
from harness.clients import AIOHTTP, BY_NUMBER, BY_OBSERVATION, K6, OURS, BatchRequest, Client
from harness.program import add_clients, counted, options, positive, print_table, spread, start, write_json

TARGETS = {OURS: "at most 15 µs"}


def main() -> None:
    """Measure, print, write."""
    parser = options(__doc__ or "", sessions=200, runs=5)
    parser.add_argument("--steps", type=positive, default=200, metavar="K", help="steps each (default: %(default)s)")
    add_clients(parser, OURS, BY_NUMBER, BY_OBSERVATION, AIOHTTP, K6)
    args = parser.parse_args()
    if args.steps < 2:
        parser.error("--steps 1: a run of fewer steps is subtracted, so ask for at least 2")
    batch = BatchRequest(args.sessions, 0.0, "burst", args.steps)
    with set_up(batch.sessions) as bench:
        runs = interleaved(args.runs, bench.clients(args.clients), lambda client: measure(bench, client, batch))
    print(f"{batch.sessions} sessions · {batch.steps} steps of 0 s · {counted(len(runs))}")
    rows = [[name, spread([run[name] for run in runs], ".1f"), TARGETS.get(name, "")] for name in runs[0]]
    print_table(["client", "CPU µs/step", "target"], rows)
    write_json(args.json, {"asked": asdict(batch), "unit": "CPU µs per step", "runs": runs})


def measure(bench: Bench, client: Client, batch: BatchRequest) -> float:
    """Return the marginal CPU of a step in µs, over all processes of the client."""
    many = bench.play(client, batch)
    few = bench.play(client, replace(batch, steps=max(1, batch.steps // 10)))
    return (many.cpu_s - few.cpu_s) / (many.truth.steps - few.truth.steps) * 1e6


if __name__ == "__main__":
    start(main)
