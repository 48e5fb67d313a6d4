"""How near does a search of a real server come to grids as fine, and for how many sessions and seconds?

The server's one thread computes for every step, so that steps take longer the more sessions there are, and a limit on
their latency is met up to a slope. Searches and grids take turns, each a pytest run as a user starts it. A search
agrees where its max batch is at most the precision away from the median of the grids', or within their spread. What a
grid says is that max batch lies between its largest batch that passes and its smallest that fails: by the middle of
both for the median, by both ends for the spread.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from harness.cpu_env import STEP_CPU
from harness.machine import describe_machine
from harness.program import note, options, positive, print_table, spread, start, write_json
from harness.pytest_run import judged_curve, sweep_command

PATIENCE_S = 1800.0
PRECISION, REPETITIONS, STEPS = 0.05, 3, 5
TARGET = "local:harness.cpu_env:app,workers=1"


@dataclass
class Answers:
    """What the runs of one kind came to, in their order; None where max batch is not known."""

    numbers: list[int | None] = field(default_factory=list[int | None])
    failing: list[int | None] = field(default_factory=list[int | None])
    """The smallest batches that fail."""
    seconds: list[float] = field(default_factory=list[float])
    sessions: list[int] = field(default_factory=list[int])
    words: list[str] = field(default_factory=list[str])

    @property
    def known(self) -> list[int]:
        """The max batches that are known."""
        return [number for number in self.numbers if number is not None]

    @property
    def brackets(self) -> list[tuple[int, int]]:
        """What passes and what fails; the same number twice where nothing failed."""
        pairs = zip(self.numbers, self.failing, strict=True)
        return [(low, high or low) for low, high in pairs if low is not None]


def main() -> None:
    """Let searches and grids take turns, and print what they came to."""
    parser = options(__doc__ or "", runs=10)
    parser.add_argument("--grids", type=positive, default=5, help="between the searches (default: %(default)s)")
    parser.add_argument("--step", type=float, default=0.002, metavar="S", help="CPU of a step (default: %(default)s)")
    parser.add_argument("--limit", default="200ms", help="what p99 of a step may be (default: %(default)s)")
    parser.add_argument("--low", type=positive, default=16, help="smallest batch (default: %(default)s)")
    parser.add_argument("--high", type=positive, default=1024, help="largest batch (default: %(default)s)")
    args = parser.parse_args()
    os.environ[STEP_CPU] = str(args.step)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
    print(describe_machine())
    searches, grids = Answers(), Answers()
    for number in range(max(args.runs, args.grids)):
        if number < args.grids:
            measure(grids, args.limit, batches=",".join(map(str, grid_batches(args.low, args.high))), reps=REPETITIONS)
        if number < args.runs:
            measure(searches, args.limit, search=f"{args.low}..{args.high}", precision=PRECISION)
    if not grids.brackets:
        print("no grid came to a number, so that there is nothing to compare searches with")
    agreeing = sum(agrees(number, grids.brackets) for number in searches.numbers)
    heads = ["", "max batch", "of them", "seconds", "sessions", ""]
    print_table(heads, [row("searches", searches), row("grids", grids)])
    print(f"{agreeing} of {len(searches.numbers)} searches agree with the grids (aim: 9 of 10)")
    kinds = {"searches": vars(searches), "grids": vars(grids)}
    write_json(args.json, {"step_s": args.step, "limit": args.limit, "agreeing": agreeing, **kinds})


def grid_batches(low: int, high: int) -> list[int]:
    """Return the batches of a grid as fine as the precision."""
    batches = [low]
    while batches[-1] < high:
        batches.append(min(max(batches[-1] + 1, int(batches[-1] * (1 + PRECISION))), high))
    return batches


def measure(answers: Answers, limit: str, **asked: object) -> None:
    """Measure the max batch once more.

    Raises:
        Problem: pytest ended without a report, or not at all.
    """
    command = sweep_command(
        TARGET, waits="0", steps=STEPS, modes="ws", slo=f"step_p99<={limit}", action='{"go": true}', **asked
    )
    began = time.monotonic()
    _, curve = judged_curve(command, PATIENCE_S)
    answers.seconds.append(time.monotonic() - began)
    answers.numbers.append(curve["max_batch"])
    answers.failing.append(curve["infeasible_min"])
    answers.sessions.append(sum(cell["batch"] * len(cell["repetitions"]) for cell in curve["cells"]))
    answers.words.append(curve["search"]["stop_reason"] if curve["search"] else curve["outcome"])
    note(f"{'search' if curve['search'] else 'grid'}: {curve['max_batch']}, {answers.words[-1]}: {curve['headline']}")


def agrees(number: int | None, grids: list[tuple[int, int]]) -> bool:
    """Say whether a max batch is one that grids come to."""
    if number is None or not grids:
        return False
    middle = median(math.sqrt(low * high) for low, high in grids)
    near = abs(number - middle) <= max(PRECISION * middle, 1)
    return near or min(low for low, _ in grids) <= number < max(high for _, high in grids)


def row(name: str, answers: Answers) -> list[str]:
    """Return one line of the table."""
    numbers = " ".join("?" if number is None else str(number) for number in answers.numbers)
    return [
        name,
        spread(answers.known, ".0f") if answers.known else "?",
        numbers,
        spread(answers.seconds, ".0f"),
        spread(answers.sessions, ",.0f"),
        " ".join(answers.words),
    ]


if __name__ == "__main__":
    start(main)
