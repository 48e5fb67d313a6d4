"""`openenv-scale compare`: a stored run against another, and whether it got worse."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .console import complain, show, width

if TYPE_CHECKING:
    from pytest_openenv_scale.core.comparison import Comparison

HELP = "compare a run with a baseline"

EXIT_CODES = {"held": 0, "shown": 0, "regressed": 1, "inconclusive": 3}
"""By outcome; 2 is bad input."""

_RUN = "a path, a run id, latest, or a git commit, branch or tag"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("baseline", metavar="A", help=f"the baseline: {_RUN}")
    parser.add_argument("now", metavar="B", help="the newer run, named in the same way")
    parser.add_argument(
        "--fail-on",
        action="append",
        default=[],
        metavar="EXPR",
        help="fail where a figure got worse by more than this, such as max_batch:-10%%,total_p99:+200ms; repeatable",
    )
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="let curves and batches of the baseline be missing from the newer run",
    )
    parser.add_argument("--format", choices=("text", "md", "json"), default="text", help="(default: text)")
    parser.add_argument("--results", type=Path, default=Path("openenv-results"), metavar="DIR", help="where runs are")


def run(given: argparse.Namespace) -> int:
    """Compare run B with the baseline A, curve by curve.

    A figure regresses where it is beyond --fail-on and outside the baseline's range over repetitions. Exit code 0
    where nothing regressed (or nothing is judged, without --fail-on), 1 for a regression, 2 for bad input,
    3 where it is inconclusive: a curve of A that B lacks, runs that measured different things, a figure in doubt.
    """
    from pytest_openenv_scale.core.baseline import find_run, parse_reference
    from pytest_openenv_scale.core.compare import compare_runs
    from pytest_openenv_scale.core.fail_on import parse_fail_on
    from pytest_openenv_scale.core.grammar import GrammarError
    from pytest_openenv_scale.core.run import RunError, load_run

    try:
        fail_on = parse_fail_on(given.fail_on)
        paths = [find_run(parse_reference(name, Path.cwd()), given.results) for name in (given.baseline, given.now)]
        if paths[0].resolve() == paths[1].resolve():
            return complain("compare", f"A and B are the same run, {paths[0]}")
        baseline, now = map(load_run, paths)
    except (GrammarError, RunError) as error:
        return complain("compare", str(error))
    named = given.baseline if given.baseline not in map(str, paths) else None
    found = compare_runs(baseline, now, fail_on, reference=named, allow_missing=given.allow_missing)
    _print(found, given.format)
    return EXIT_CODES[found.outcome]


def _print(found: Comparison, form: str) -> None:
    from pytest_openenv_scale.reports.comparison import comparison_lines, comparison_markdown

    if form == "text":
        show(comparison_lines(found, width=width(), encoding=sys.stdout.encoding))
        return
    if form == "md":
        sys.stdout.buffer.write(comparison_markdown(found).encode())
        return
    document = {"format": 1, "outcome": found.outcome.value, **found.to_json()}
    print(json.dumps(document, allow_nan=False, indent=1))
