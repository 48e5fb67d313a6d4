"""`openenv-scale export`: a run as the older result files."""

from __future__ import annotations

import argparse
from pathlib import Path

from .console import complain
from .runs import run_path

HELP = "write a run as older result files"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("path", metavar="RUN", help="directory or id of a run, or latest")
    parser.add_argument("--results", type=Path, default=Path("openenv-results"), metavar="DIR", help="where runs are")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write there (default: the run's folder older/)")


def run(given: argparse.Namespace) -> int:
    """Write raw.jsonl (a line per session) and summary.csv (a line per cell and repetition) of a run."""
    from pytest_openenv_scale.core.run import RunError
    from pytest_openenv_scale.legacy.exporting import export_older
    from pytest_openenv_scale.legacy.files import LegacyError

    try:
        path = run_path(given.path, given.results)
        written = export_older(path, given.output or path / "older")
    except (LegacyError, RunError) as error:
        return complain("export", str(error))
    print(f"written: {', '.join(map(str, written))}")
    return 0
