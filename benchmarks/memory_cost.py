"""What one open session costs the client in memory: KiB per session of the process that holds them.

A held batch is read twice: while all its sessions are open, and for the most the process ever held (which has the rows
of the finished cell in it). The same at ten sessions is subtracted, and with it interpreter and libraries.
"""

from __future__ import annotations

from dataclasses import asdict, replace

from harness.bench import Bench, interleaved, set_up
from harness.clients import AIOHTTP, OURS, BatchRequest, Client
from harness.problem import Problem
from harness.program import add_clients, add_wait, counted, options, print_table, spread, start, write_json

FEW = 10
"""Sessions of the run that is subtracted."""

TARGETS = {OURS: "at most 8 KiB"}

Figures = dict[str, float]


def main() -> None:
    """Measure, print, write."""
    parser = options(__doc__ or "", sessions=8000, runs=3)
    add_wait(parser)
    add_clients(parser, OURS, AIOHTTP)
    args = parser.parse_args()
    if args.sessions <= FEW:
        parser.error(f"--sessions {args.sessions}: a run of {FEW} is subtracted, so ask for more than that")
    batch = BatchRequest(args.sessions, args.wait, "hold")
    with set_up(batch.sessions) as bench:
        runs = interleaved(args.runs, bench.clients(args.clients), lambda client: measure(bench, client, batch))
    print(f"{batch.sessions} sessions · hold · {counted(len(runs))}; {FEW} sessions subtracted")
    rows = [
        [
            name,
            spread([run[name]["held_kib"] for run in runs], ".1f"),
            spread([run[name]["peak_kib"] for run in runs], ".1f"),
            TARGETS.get(name, ""),
        ]
        for name in runs[0]
    ]
    print_table(["client", "KiB/open session", "KiB at the peak", "target"], rows)
    write_json(args.json, {"asked": asdict(batch), "unit": "KiB per session", "runs": runs})


def measure(bench: Bench, client: Client, batch: BatchRequest) -> Figures:
    """Return the marginal resident KiB of a session.

    Raises:
        Problem: the client does not look at its memory.
    """
    many, few = (bench.play(client, request).figures for request in (batch, replace(batch, sessions=FEW)))
    if not many.get("held_kib"):
        raise Problem(f"{client.name} does not tell its memory: leave it out")
    return {name: (many[name] - few[name]) / (batch.sessions - FEW) for name in ("held_kib", "peak_kib")}


if __name__ == "__main__":
    start(main)
