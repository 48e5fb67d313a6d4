"""How many sessions are truly open at once: held batches through the plugin, against the built-in environment.

Each size is a pytest run of the ready-made suite, as a user starts it; what is printed comes from its JSON report.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

from harness.machine import describe_machine
from harness.program import add_wait, note, options, positive, print_table, start, write_json
from harness.pytest_run import judged_curve, sweep_command

PATIENCE_S = 1800.0


@dataclass(frozen=True)
class Outcome:
    """What a run of pytest said of one size."""

    code: int
    verdict: str
    headline: str
    cell: dict[str, Any]


def main() -> None:
    """Run the sizes one after the other and print what their reports say."""
    parser = options(__doc__ or "")
    parser.add_argument(
        "sizes", nargs="*", type=positive, default=[16384, 32768], help="sessions at once (default: 16384 32768)"
    )
    add_wait(parser)
    parser.add_argument(
        "--target", default="local:builtin", metavar="SPEC", help="as in --openenv-target (default: %(default)s)"
    )
    args = parser.parse_args()
    print(describe_machine())
    outcomes = {size: one_size(size, args.wait, args.target) for size in args.sizes}
    rows = [[f"{size}", *row(outcome)] for size, outcome in outcomes.items()]
    heads = ["asked", "peak open", "success", "load processes", "step p99 s", "wall s", "exit", "verdict"]
    print_table(heads, rows)
    write_json(args.json, {str(size): outcome.__dict__ for size, outcome in outcomes.items()})


def one_size(size: int, wait: float, target: str) -> Outcome:
    """Measure one size with pytest.

    Raises:
        Problem: pytest ended without a report, or not at all.
    """
    command = sweep_command(target, batches=size, waits=f"{wait:g}", slo="success>=1")
    note(shlex.join(command[1:]))
    code, curve = judged_curve(command, PATIENCE_S)
    return Outcome(code, curve["outcome"], curve["headline"], curve["cells"][0]["repetitions"][0])


def row(outcome: Outcome) -> list[str]:
    """Return one line of the table, without the size."""
    cell = outcome.cell
    step = cell["phases"].get("step") or {}
    return [
        str(cell["peak_concurrency"]),
        f"{cell['success_rate']:.2%}" if cell["success_rate"] is not None else "–",
        str(cell["client"].get("processes", "–")),
        f"{step['p99']:.2f}" if step.get("p99") is not None else "–",
        f"{cell['wall_s']:.1f}",
        str(outcome.code),
        f"{outcome.verdict}: {outcome.headline}",
    ]


if __name__ == "__main__":
    start(main)
