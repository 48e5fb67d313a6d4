"""What one WebSocket session costs the client: CPU per session of four clients, side by side.

A session connects, upgrades, resets, steps once, closes, and its row is recorded: in this project's engine by one load
process and its parent, as a table and a sealed Parquet part. The ratio is to a client in C that records nothing.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from statistics import median

from harness.bench import Bench, interleaved, set_up
from harness.clients import AIOHTTP, FLOOR, K6, OURS, BatchRequest, Client
from harness.program import add_clients, add_wait, counted, options, print_table, spread, start, write_json

FEW = 10
"""Sessions of the run that is subtracted: start-up, imports and the first session of everything are in it."""

ENOUGH = 1000
"""Sessions below which the start-up of Python varies more than they cost."""

TARGETS = {OURS: "at most 3 × the floor, aim 2"}

Figures = dict[str, float]


def main() -> None:
    """Measure, print, write."""
    parser = options(__doc__ or "", sessions=8000, runs=5)
    add_wait(parser)
    parser.add_argument(
        "--arrival",
        choices=["burst", "hold"],
        default="burst",
        help="how sessions start; the C floor always bursts (default: %(default)s)",
    )
    add_clients(parser, FLOOR, OURS, AIOHTTP, K6)
    args = parser.parse_args()
    if args.sessions <= FEW:
        parser.error(f"--sessions {args.sessions}: a run of {FEW} is subtracted, so ask for more than that")
    batch = BatchRequest(args.sessions, args.wait, args.arrival)
    with set_up(batch.sessions) as bench:
        runs = interleaved(args.runs, bench.clients(args.clients), lambda client: measure(bench, client, batch))
    report(batch, runs)
    write_json(args.json, {"asked": asdict(batch), "unit": "CPU µs per session", "runs": runs})


def measure(bench: Bench, client: Client, batch: BatchRequest) -> Figures:
    """Return the marginal CPU of a session in µs, over all processes of the client."""
    many = bench.play(client, batch)
    few = bench.play(client, replace(batch, sessions=FEW))
    marginal = (many.cpu_s - few.cpu_s) / (batch.sessions - FEW)
    return {"us": marginal * 1e6, "ok": many.figures["ok"] / batch.sessions, "wall_s": many.wall_s}


def report(batch: BatchRequest, runs: list[dict[str, Figures]]) -> None:
    """Print the medians of the runs; a ratio is to the floor of the same run."""
    print(
        f"{batch.sessions} sessions · one step of {batch.wait:g} s · {batch.arrival} · {counted(len(runs))};"
        f" {FEW} sessions subtracted"
    )
    if batch.sessions < ENOUGH:
        print(f"fewer than {ENOUGH} sessions: start-up varies more than the sessions cost, the figures mean nothing")
    rows: list[list[str]] = []
    for name in runs[0]:
        client_runs = [run[name] for run in runs]
        ratios = [run[name]["us"] / run[FLOOR]["us"] for run in runs] if FLOOR in runs[0] else []
        rows.append(
            [
                name,
                spread([run["us"] for run in client_runs], ".0f"),
                spread(ratios) if ratios else "–",
                f"{min(run['ok'] for run in client_runs):.1%}",
                f"{median(run['wall_s'] for run in client_runs):.1f}",
                TARGETS.get(name, ""),
            ]
        )
    print_table(["client", "CPU µs/session", "× C floor", "ok", "wall s", "target"], rows)


if __name__ == "__main__":
    start(main)
