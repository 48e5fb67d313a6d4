"""What the plugin costs a pytest run that uses none of it: whole runs, with it and with `-p no:openenv_scale` in turn.

The runs are of one test that does nothing, in a folder of its own, with bytecode compiled before; other plugins that
are installed stay out of both. What the plugin imports is timed by Python itself (`-X importtime`), which does not see
plugin.py: pytest imports that in a way of its own.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from statistics import median

from harness.machine import choose_cores, describe_machine
from harness.problem import Problem
from harness.processes import Ended, run_pinned
from harness.program import counted, note, options, print_table, spread, start, write_json

PLUGIN, PACKAGE = "openenv_scale", "pytest_openenv_scale"
WITHOUT = ("-p", f"no:{PLUGIN}")
TARGETS = {"wall ms": "at most 10 ms"}
IMPORT_RUNS = 5
"""At most so many runs tell what imports take."""

SHOWN = 10

_IMPORT = re.compile(r"import time:\s*(\d+) \|\s*(\d+) \|\s*(\S+)")


def main() -> None:
    """Measure, print, write."""
    args = options(__doc__ or "", runs=25).parse_args()
    print(describe_machine(), flush=True)
    with tempfile.TemporaryDirectory(prefix="openenv-scale-bench-") as folder:
        bench = Runs(Path(folder))
        pairs = measure(bench, args.runs)
        imports = cost_of_imports(bench, min(args.runs, IMPORT_RUNS))
    print(f"one test that uses none of it · pairs: {counted(len(pairs))}")
    print_table(
        ["", "with", "without", "more", "ratio", "target"], [row(name, pairs) for name in ("wall ms", "CPU ms")]
    )
    print(f"the costliest of {len(imports)} imports")
    costliest = sorted(imports.items(), key=lambda item: -item[1]["own"])[:SHOWN]
    print_table(
        ["import", "own ms", "with what it imports ms", ""],
        [[name, f"{cost['own']:.2f}", f"{cost['all']:.2f}", ""] for name, cost in costliest],
    )
    write_json(args.json, {"runs": pairs, "imports": imports})


class Runs:
    """pytest in a folder with one test, with bytecode in another."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "repository"
        self._folder.mkdir()
        (self._folder / "pytest.ini").write_text("[pytest]\n")
        (self._folder / "test_nothing.py").write_text("def test_nothing():\n    pass\n")
        other_plugins = {point.name for point in entry_points(group="pytest11")} - {PLUGIN}
        self._without_others = [word for name in sorted(other_plugins) for word in ("-p", f"no:{name}")]
        self._core = choose_cores().client
        dropped = ("PYTHONDONTWRITEBYTECODE", "PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD")
        inherited = {name: value for name, value in os.environ.items() if name not in dropped}
        self._environment: Mapping[str, str] = {**inherited, "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}

    def run(self, *arguments: str, python: Sequence[str] = ()) -> Ended:
        """Run pytest once.

        Raises:
            Problem: the one test did not pass.
        """
        command = [sys.executable, *python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *self._without_others]
        ended = run_pinned([*command, *arguments, str(self._folder)], self._core, self._environment)
        if "1 passed" not in ended.output:
            raise Problem(f"pytest did not pass its one test: {(ended.complaints + ended.output).strip()[-500:]}")
        return ended


def measure(bench: Runs, runs: int) -> list[dict[str, dict[str, float]]]:
    """Return wall and CPU of every pair in ms; which of the two comes first changes from pair to pair."""
    sides: dict[str, tuple[str, ...]] = {"with": (), "without": WITHOUT}
    for arguments in sides.values():
        bench.run(*arguments)
    pairs: list[dict[str, dict[str, float]]] = []
    for number in range(runs):
        note(f"pair {number + 1} of {runs}")
        order = list(sides) if number % 2 else list(reversed(sides))
        ended = {side: bench.run(*sides[side]) for side in order}
        pairs.append({side: {"wall ms": ended[side].wall_s * 1e3, "CPU ms": ended[side].cpu_s * 1e3} for side in sides})
    return pairs


def row(name: str, pairs: list[dict[str, dict[str, float]]]) -> list[str]:
    """Return a line of the table; difference and ratio are those of pairs."""
    with_and_without = [(pair["with"][name], pair["without"][name]) for pair in pairs]
    sides = [f"{median(values):.0f}" for values in zip(*with_and_without, strict=True)]
    more, ratios = [one - other for one, other in with_and_without], [one / other for one, other in with_and_without]
    return [name, *sides, spread(more, ".1f"), f"{median(ratios):.3f}", TARGETS.get(name, "")]


def cost_of_imports(bench: Runs, runs: int) -> dict[str, dict[str, float]]:
    """Return what each module of the package takes to import, in ms, by itself and with what it imports."""
    by_module: dict[str, dict[str, list[float]]] = {}
    for _ in range(runs):
        for own, everything, name in _IMPORT.findall(bench.run(python=("-X", "importtime")).complaints):
            if name.startswith(PACKAGE):
                costs = by_module.setdefault(name, {"own": [], "all": []})
                costs["own"].append(int(own) / 1e3)
                costs["all"].append(int(everything) / 1e3)
    return {name: {kind: median(values) for kind, values in costs.items()} for name, costs in by_module.items()}


if __name__ == "__main__":
    start(main)
