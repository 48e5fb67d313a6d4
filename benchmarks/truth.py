"""How much latency the client invents: its p50 and p99 of a step minus the null server's own.

The server times every step itself, from the frame read to the reply written, and says so when it ends. What a client
tells beyond that is not the server's. This project's engine reads the kernel's arrival time, the others their clock.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from statistics import median

from harness.bench import Bench, interleaved, set_up
from harness.clients import AIOHTTP, K6, OURS, BatchRequest, Client
from harness.problem import Problem
from harness.program import add_clients, add_wait, counted, options, print_table, spread, start, write_json

ARRIVALS = ("burst", "hold")

TARGETS = {OURS: "p50 5, p99 40 (aim 2, 10)"}

Figures = dict[str, float]


def main() -> None:
    """Measure, print, write."""
    parser = options(__doc__ or "", sessions=8000, runs=5)
    add_wait(parser)
    add_clients(parser, OURS, AIOHTTP, K6)
    args = parser.parse_args()
    batch = BatchRequest(args.sessions, args.wait)
    with set_up(batch.sessions) as bench:
        runs = interleaved(args.runs, bench.clients(args.clients), lambda client: measure(bench, client, batch))
    for arrival in ARRIVALS:
        report(replace(batch, arrival=arrival), [{name: run[name][arrival] for name in run} for run in runs])
    write_json(args.json, {"asked": asdict(batch), "unit": "ms", "runs": runs})


def measure(bench: Bench, client: Client, batch: BatchRequest) -> dict[str, Figures]:
    """Return what the client invented in each arrival, in ms."""
    return {arrival: compare(bench, client, replace(batch, arrival=arrival)) for arrival in ARRIVALS}


def compare(bench: Bench, client: Client, batch: BatchRequest) -> Figures:
    """Play one batch and put the client's figures beside the server's, in ms.

    Raises:
        Problem: the client measured no step.
    """
    played = bench.play(client, batch)
    figures, truth = played.figures, played.truth
    if figures.get("step_over_p99") is None:
        raise Problem(f"{client.name} measured no step: {figures['ok']} of {batch.sessions} sessions succeeded")
    return {
        "invented_p50": (figures["step_over_p50"] - truth.step_over_p50) * 1e3,
        "invented_p99": (figures["step_over_p99"] - truth.step_over_p99) * 1e3,
        "server_p50": truth.step_over_p50 * 1e3,
        "server_p99": truth.step_over_p99 * 1e3,
        "ok": figures["ok"] / batch.sessions,
    }


def report(batch: BatchRequest, runs: list[dict[str, Figures]]) -> None:
    """Print the medians of the runs' differences."""
    print(
        f"\n{batch.sessions} sessions · one step of {batch.wait:g} s · {batch.arrival} · {counted(len(runs))};"
        " ms beyond the server's own"
    )
    rows: list[list[str]] = []
    for name in runs[0]:
        client_runs = [run[name] for run in runs]
        p50, p99 = (median(run[figure] for run in client_runs) for figure in ("server_p50", "server_p99"))
        server = f"{p50:.1f} / {p99:.1f}"
        rows.append(
            [
                name,
                spread([run["invented_p50"] for run in client_runs], ".1f"),
                spread([run["invented_p99"] for run in client_runs], ".1f"),
                server,
                f"{min(run['ok'] for run in client_runs):.1%}",
                TARGETS.get(name, ""),
            ]
        )
    print_table(["client", "p50", "p99", "server's own p50 / p99", "ok", "target"], rows)


if __name__ == "__main__":
    start(main)
