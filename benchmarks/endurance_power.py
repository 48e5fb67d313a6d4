"""What the endurance check says of made-up soaks: how often one that rises is missed, unsure or met, and a flat one.

A soak is of 20 s and a server at 20 ms; the last 16 s, a window each, are judged. The windows scatter around their
line by a share of it, correlated from one to the next, and some stand out, 1.5 to 4 times as slow, as on a machine that
stalls.
"""

from __future__ import annotations

import random
from collections import Counter
from itertools import product

from harness.program import options, positive, print_table, start, write_json

WARM_UP_S, LENGTH_S, LEVEL_S = 4, 20, 0.020
CORRELATION = 0.5
RISES = (0.0, 0.5, 1.0, 2.0, 4.0)
SCATTERS = (0.02, 0.1, 0.2)
OUTLIERS = (0.0, 0.1, 0.2)


def main() -> None:
    """Draw the soaks, have them judged, print the shares."""
    parser = options(__doc__ or "")
    parser.add_argument("--soaks", type=positive, default=1000, help="of each kind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of what is drawn (default: %(default)s)")
    args = parser.parse_args()
    draw = random.Random(args.seed)
    results = {
        kind: Counter(verdict(soak(draw, *kind)) for _ in range(args.soaks))
        for kind in product(RISES, SCATTERS, OUTLIERS)
    }
    outcomes = ("missed", "inconclusive", "met")
    print(f"{args.soaks:,} soaks of each kind, seed {args.seed}, correlation of neighbours {CORRELATION}")
    print_table(
        ["rise", "scatter", "stand out", *outcomes, ""],
        [
            [*(f"{share:.0%}" for share in kind), *(f"{counts[outcome] / args.soaks:.1%}" for outcome in outcomes), ""]
            for kind, counts in results.items()
        ],
    )
    kinds = [
        {"rise": rise, "scatter": scatter, "outliers": outliers, **results[rise, scatter, outliers]}
        for rise, scatter, outliers in results
    ]
    write_json(args.json, {"soaks": args.soaks, "seed": args.seed, "correlation": CORRELATION, "kinds": kinds})


def soak(draw: random.Random, rise: float, scatter: float, outliers: float) -> list[float]:
    """Return the p50 of every second after the warm-up, in seconds; it rises over the whole soak."""
    latencies: list[float] = []
    deviation = draw.gauss(0, 1)
    for second in range(WARM_UP_S, LENGTH_S):
        deviation = CORRELATION * deviation + (1 - CORRELATION**2) ** 0.5 * draw.gauss(0, 1)
        latency = LEVEL_S * (1 + rise * second / (LENGTH_S - 1)) * max(0.1, 1 + scatter * deviation)
        latencies.append(latency * (draw.uniform(1.5, 4) if draw.random() < outliers else 1))
    return latencies


def verdict(latencies: list[float]) -> str:
    """Return what the check says of a soak whose windows had these medians and nothing else to tell."""
    from pytest_openenv_scale.checks.under_load.endurance import judge
    from pytest_openenv_scale.checks.under_load.soak import Soak
    from pytest_openenv_scale.metrics.windows import Window

    windows = tuple(
        Window(float(second), second + 1.0, True, steps=400, step_p50_s=latency)
        for second, latency in enumerate(latencies, WARM_UP_S)
    )
    return judge(Soak(8, float(LENGTH_S), windows, others_cores=(None,) * len(windows))).outcome.value


if __name__ == "__main__":
    start(main)
