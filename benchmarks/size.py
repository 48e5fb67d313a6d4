"""How many sessions are truly open at once: held batches through the plugin, against the built-in environment.

Each size is a pytest run of the ready-made suite, as a user starts it; what is printed comes from its JSON report.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.machine import describe_machine
from harness.problem import Problem
from harness.program import add_wait, note, options, positive, print_table, start, write_json

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
    """Measure one size with pytest, in a folder of its own.

    Raises:
        Problem: pytest ended without a report, or not at all.
    """
    with tempfile.TemporaryDirectory(prefix="openenv-scale-bench-") as folder:
        report = Path(folder) / "report.json"
        command = pytest_command(size, wait, target, report)
        note(shlex.join(["pytest", *command[3:]]))
        (Path(folder) / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Problem(f"pytest did not end within {PATIENCE_S:.0f} s at {size} sessions") from None
        if not report.exists():
            last_line = (done.stdout.strip() or done.stderr.strip() or "it said nothing").splitlines()[-1]
            raise Problem(f"pytest ended with code {done.returncode} and no report: {last_line}")
        (curve,) = json.loads(report.read_text())["sweeps"][0]["curves"]
    return Outcome(done.returncode, curve["outcome"], curve["headline"], curve["cells"][0]["repetitions"][0])


def pytest_command(size: int, wait: float, target: str, report: Path) -> list[str]:
    """Return the command a user would type, its files kept in the folder of the report."""
    return [
        *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", "pytest.ini", "--rootdir", "."),
        *("--pyargs", "pytest_openenv_scale.suite", "-m", "scaling", "--openenv-target", target),
        *("--openenv-batches", str(size), "--openenv-waits", f"{wait:g}", "--openenv-slo", "success>=1"),
        *("--openenv-json", str(report), "--openenv-results", "none"),
    ]


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
