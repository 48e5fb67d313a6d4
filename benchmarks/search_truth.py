"""How near a search comes to the truth, and for how many sessions: simulated servers of which it is known.

The truth is the batch at which half of the repetitions pass. An answer is within where it is at most 5 % away from it,
and false where a batch that is said to hold, or to fail, does the opposite by more than that; "at most" is the upper
end of the 95 % interval. The servers are those of the tests: tests/simulated_server.py.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from harness.program import options, positive, print_table, start, write_json

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

AIMS = (
    "within 95 %; false below 1 %; a third of a grid's sessions (median); never beyond a budget; drift and leaks said"
)
BUDGETS_S = (3.0, 60.0)


def main() -> None:
    """Search every server, print what came of it."""
    from simulated_server import KINDS

    parser = options(__doc__ or "")
    parser.add_argument("--servers", type=positive, default=3000, help="of each kind (default: %(default)s)")
    args = parser.parse_args()
    print(f"{args.servers:,} servers of each kind, precision 5 %, 3 repetitions; aims: {AIMS}")
    rows = [figures(kind, args.servers) for kind in KINDS]
    heads = [
        "kind",
        "within 5 %",
        "false",
        "at most",
        "false, unsaid",
        "of a grid",
        "said to change",
        "over budget",
        "",
    ]
    print_table(heads, [line(row) for row in rows])
    write_json(args.json, {"servers": args.servers, "kinds": rows})


def figures(kind: str, servers: int) -> dict[str, Any]:
    """Return what became of the searches of one kind of server."""
    from pytest_openenv_scale.metrics.certainty import success_interval
    from simulated_server import SimulatedServer, answer, search

    answers = [answer(kind, seed) for seed in range(servers)]
    beyond = 0
    for seed in range(max(servers // 10, 1)):
        server = SimulatedServer.draw(kind, seed)
        budget = server.random.uniform(*BUDGETS_S)
        _, spent = search(server, budget=budget)
        beyond += spent > budget
    false = sum(answer.is_false for answer in answers)
    return {
        "kind": kind,
        "within": sum(answer.is_within for answer in answers) / servers,
        "false": false / servers,
        "false_at_most": success_interval(false, servers)[1],
        "false_unsaid": sum(answer.is_false and answer.said is None for answer in answers) / servers,
        "of_a_grid": median(answer.cost for answer in answers),
        "said": sum(answer.said is not None for answer in answers) / servers,
        "over_budget": beyond,
    }


def line(row: dict[str, Any]) -> Sequence[str]:
    """Return a row of the table."""
    shares = ("within", "false", "false_at_most", "false_unsaid", "of_a_grid", "said")
    return [row["kind"], *(f"{row[name]:.1%}" for name in shares), f"{row['over_budget']}", ""]


if __name__ == "__main__":
    start(main)
