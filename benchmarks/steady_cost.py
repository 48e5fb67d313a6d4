"""What a steady state costs the client, and what it makes up: slots that think, held for minutes.

Every slot plays session after session of a few steps and thinks before each, as training does. The server answers at
once and times every step itself, from the frame read to the reply written: what a client tells beyond that is not the
server's. CPU and memory are those of a client's whole process tree between the end of the ramp and the end of time.
Where the think time is always the same, the server knows how late steps were sent, too.
"""

from __future__ import annotations

from dataclasses import asdict
from statistics import median

from harness.bench import set_up
from harness.clients import K6, LOCUST, OURS
from harness.program import add_clients, counted, note, options, positive, print_table, spread, start, write_json
from harness.steady import SETTLED_S, Steady, SteadyState, play_steady, steady_clients

TARGETS = {OURS: "late p99 ≤ 10 at 8,000 slots, ≤ 2 % of a core per 1,000, memory flat"}

Figures = dict[str, float]


def main() -> None:
    """Measure, print, write."""
    parser = options(__doc__ or "", sessions=8000, runs=1)
    for name, default, meaning in (
        ("seconds", 120.0, "how long it lasts"),
        ("ramp", 30.0, "how much of that it takes until all slots have begun"),
        ("think", 10.0, "mean think time"),
    ):
        parser.add_argument(
            f"--{name}", type=float, default=default, metavar="S", help=f"{meaning}, in seconds (default: %(default)g)"
        )
    parser.add_argument("--fixed", action="store_true", help="always think as long, instead of exponentially")
    parser.add_argument(
        "--steps", type=positive, default=5, metavar="K", help="steps of a session (default: %(default)s)"
    )
    add_clients(parser, OURS, K6, LOCUST)
    args = parser.parse_args()
    if args.seconds < args.ramp + 2 * SETTLED_S:
        parser.error(f"--seconds {args.seconds:g}: ask for at least {2 * SETTLED_S:g} s more than --ramp")
    state = SteadyState(args.sessions, args.seconds, args.ramp, args.steps, args.think, not args.fixed)
    with set_up(state.slots) as bench:
        clients = steady_clients(args.clients)
        runs: list[dict[str, Figures]] = []
        for number in range(1, args.runs + 1):
            runs.append({})
            for client in clients:
                note(f"run {number} of {args.runs}: {client.name}")
                runs[-1][client.name] = figures(state, play_steady(bench, client, state))
    report(state, runs)
    write_json(args.json, {"asked": asdict(state), "runs": runs})


def figures(state: SteadyState, steady: Steady) -> Figures:
    """Return what one client used and told beside what the server saw; times in ms, memory in MiB."""
    first, last, told, truth = steady.samples[0], steady.samples[-1], steady.figures, steady.truth
    elapsed, steps, cpu_s = last.elapsed_s - first.elapsed_s, last.steps - first.steps, last.cpu_s - first.cpu_s
    result = {
        "steps_per_second": steps / elapsed,
        "cpu_s_per_1000_steps": cpu_s / steps * 1e3,
        "core_share_per_1000_slots": cpu_s / elapsed / state.slots * 1e3,
        "mib_first": first.resident_kib / 1024,
        "mib_half": steady.samples[len(steady.samples) // 2].resident_kib / 1024,
        "mib_last": last.resident_kib / 1024,
        "late_p50": told["late_p50"] * 1e3,
        "late_p99": told["late_p99"] * 1e3,
        "invented_p50": (told["step_p50"] - truth.step_over_p50) * 1e3,
        "invented_p99": (told["step_p99"] - truth.step_over_p99) * 1e3,
        "server_p50": truth.step_over_p50 * 1e3,
        "server_p99": truth.step_over_p99 * 1e3,
        "peak_open": truth.peak_open,
        "ok": told["ok"],
    }
    if not state.exponential:
        result["seen_late_p50"] = (truth.pause_p50 - state.think) * 1e3
        result["seen_late_p99"] = (truth.pause_p99 - state.think) * 1e3
    return result


def report(state: SteadyState, runs: list[dict[str, Figures]]) -> None:
    """Print the medians of the runs; a ratio is to ours in the same run."""
    think = f"{state.think:g} s" if not state.exponential else f"exponential, mean {state.think:g} s"
    print(
        f"\n{state.slots} slots for {state.seconds:g} s, {state.ramp:g} s of it ramp · sessions of {state.steps} steps"
        f" of 0 s · think time {think} · {counted(len(runs))}"
    )
    names = list(runs[0])
    cost = [
        [
            name,
            _spread(runs, name, "steps_per_second", ".0f"),
            _spread(runs, name, "cpu_s_per_1000_steps", ".3f"),
            _ratio(runs, name, "cpu_s_per_1000_steps"),
            _spread(runs, name, "core_share_per_1000_slots", ".2%"),
            " → ".join(_spread(runs, name, f"mib_{moment}", ".0f") for moment in ("first", "half", "last")),
            TARGETS.get(name, ""),
        ]
        for name in names
    ]
    heads = ["client", "steps/s", "CPU s/1,000 steps", "× ours", "core/1,000 slots", "MiB, ramp's end → half → end"]
    print_table([*heads, "target"], cost)
    print("\nms: latency of steps beyond the server's own, and how late steps were sent after a think time")
    truth = [
        [
            name,
            *(
                f"{_spread(runs, name, f'{figure}_p50', '.2f')} / {_spread(runs, name, f'{figure}_p99', '.2f')}"
                for figure in ("invented", "server", "late")
            ),
            _seen(runs, name),
            f"{median(run[name]['peak_open'] for run in runs):.0f}",
            f"{min(run[name]['ok'] for run in runs):.1%}",
        ]
        for name in names
    ]
    heads = ["client", "invented p50 / p99", "server's own", "sent late, as told", "as the server saw", "most open"]
    print_table([*heads, "ok"], truth)


def _spread(runs: list[dict[str, Figures]], name: str, figure: str, form: str) -> str:
    return spread([run[name][figure] for run in runs], form)


def _ratio(runs: list[dict[str, Figures]], name: str, figure: str) -> str:
    return spread([run[name][figure] / run[OURS][figure] for run in runs], ".1f") if OURS in runs[0] else "–"


def _seen(runs: list[dict[str, Figures]], name: str) -> str:
    if "seen_late_p50" not in runs[0][name]:
        return "–"
    return f"{_spread(runs, name, 'seen_late_p50', '.2f')} / {_spread(runs, name, 'seen_late_p99', '.2f')}"


if __name__ == "__main__":
    start(main)
