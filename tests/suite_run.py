"""The ready-made suite, run as a user runs it, and what became of each subject."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pytest_run import run_pytest

SMALL = ("--openenv-batches=1,16", "--openenv-waits=0.01", "--openenv-soak=10s", "--openenv-timeout=30s")
"""Enough to show every defect within a minute: up to 16 sessions at once."""


TURNS = 3
"""How often at most a test is asked that a busy neighbour left unsure, this machine's other tests for one."""


@dataclass(frozen=True)
class SuiteRun:
    """A run of the suite: the outcome of every test by its short name, its headline, and what pytest said."""

    outcomes: dict[str, str]
    headlines: dict[str, str]
    output: str

    def subjects(self, outcome: str) -> set[str]:
        """The subjects of which some test came out so, `scaling` among them."""
        return {
            name.partition("[")[0].removeprefix("test_") for name, found in self.outcomes.items() if found == outcome
        }

    @property
    def told(self) -> str:
        """Everything one needs to see of a run that did not end as expected."""
        lines = [f"{found:13} {name}: {self.headlines[name]}" for name, found in self.outcomes.items()]
        return "\n".join([*lines, self.output[-6000:]])


def run_suite(folder: Path, *arguments: str, timeout_s: float = 400, **env: str) -> SuiteRun:
    """Run the whole suite in a folder of its own, whoever else measures on this machine: several may run side by side.

    What came out inconclusive is asked again, alone: "ask again" is what it means. What was met or missed is not.
    """
    env["TMPDIR"] = str(folder / "tmp")
    (folder / "tmp").mkdir()
    asked = ["pytest_openenv_scale.suite"]
    outcomes: dict[str, str] = {}
    headlines: dict[str, str] = {}
    output = ""
    for turn in range(TURNS):
        within = folder / f"turn-{turn}"
        within.mkdir()
        (within / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
        ran = run_pytest(within, "--pyargs", *asked, *SMALL, *arguments, timeout_s=timeout_s, **env)
        output += ran.output
        told = json.loads((ran.run_dir / "report.json").read_text())
        found = {check["test"]: (check["result"]["outcome"], check["result"]["headline"]) for check in told["checks"]}
        for sweep in told["sweeps"]:
            found[sweep["test"]] = sweep["outcome"], "; ".join(curve["headline"] for curve in sweep["curves"])
        failed = any(outcome in ("missed", "inconclusive") for outcome, _ in found.values())
        assert ran.code == (1 if failed else 0), output
        for test, (outcome, headline) in found.items():
            name = test.rpartition("::")[2]
            outcomes[name], headlines[name] = outcome, headline
        asked = [_importable(test) for test, (outcome, _) in found.items() if outcome == "inconclusive"]
        if not asked:
            break
    return SuiteRun(outcomes, headlines, output)


def _importable(test: str) -> str:
    """Return the name by which `--pyargs` finds a test of the suite."""
    path, _, name = test.partition("::")
    return f"pytest_openenv_scale.suite.{Path(path).stem}::{name}"
