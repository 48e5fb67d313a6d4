"""The ready-made suite, run as a user runs it, and what became of each subject."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pytest_run import QUIET_CONFIG, run_pytest

SMALL = ("--openenv-batches=1,16", "--openenv-waits=0.01", "--openenv-soak=10s", "--openenv-timeout=30s")
"""Enough to show every defect within a minute: up to 16 sessions at once."""


@dataclass(frozen=True)
class SuiteRun:
    """A run of the suite: the outcome of every test by its short name, its headline, and what pytest said."""

    outcomes: dict[str, str]
    headlines: dict[str, str]
    output: str

    def subjects(self, outcome: str) -> set[str]:
        """The subjects of which some test came out so, `scaling` among them."""
        return {
            name.partition("[")[0].removeprefix("test_") for name, actual in self.outcomes.items() if actual == outcome
        }

    @property
    def told(self) -> str:
        """Everything one needs to see of a run that did not end as expected."""
        lines = [f"{outcome:13} {name}: {self.headlines[name]}" for name, outcome in self.outcomes.items()]
        return "\n".join([*lines, self.output[-6000:]])


def run_suite(folder: Path, *arguments: str, timeout_s: float = 400, **env: str) -> SuiteRun:
    """Run the suite, or what the arguments select of it, in a folder of its own."""
    (folder / "pytest.ini").write_text(QUIET_CONFIG)
    suite = ("--pyargs", "pytest_openenv_scale.suite")
    ran = run_pytest(folder, *suite, *SMALL, *arguments, timeout_s=timeout_s, **env)
    report = json.loads((ran.run_dir / "report.json").read_text())
    results = {check["test"]: (check["result"]["outcome"], check["result"]["headline"]) for check in report["checks"]}
    for sweep in report["sweeps"]:
        results[sweep["test"]] = sweep["outcome"], "; ".join(curve["headline"] for curve in sweep["curves"])
    failed = any(outcome in ("missed", "inconclusive") for outcome, _ in results.values())
    assert ran.code == (1 if failed else 0), ran.output
    names = {test: test.rpartition("::")[2] for test in results}
    return SuiteRun(
        {names[test]: outcome for test, (outcome, _) in results.items()},
        {names[test]: headline for test, (_, headline) in results.items()},
        ran.output,
    )
