"""`openenv-scale import`: older result files become runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from .console import complain

HELP = "make runs of older result files"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="raw.jsonl, or a folder that holds some")
    parser.add_argument("--infrastructure", metavar="NAME", help="what was measured (default: .../NAME/DATE/raw.jsonl)")
    parser.add_argument("--cores", metavar="N", help="the server's cores, where known")
    parser.add_argument("--note", metavar="TEXT", help="keep this text with the runs")
    parser.add_argument(
        "--results", type=Path, default=Path("openenv-results"), metavar="DIR", help="write the runs into this folder"
    )


def run(given: argparse.Namespace) -> int:
    """Make a run of raw.jsonl and the summary.csv beside it, so that it reports and compares like any other."""
    from pytest_openenv_scale.core.grammar import GrammarError, parse_count
    from pytest_openenv_scale.core.run import RunError
    from pytest_openenv_scale.legacy.files import LegacyError
    from pytest_openenv_scale.legacy.importing import import_older, sources

    try:
        cores = None if given.cores is None else parse_count(given.cores, what="--cores")
        for source in sources(given.paths, given.infrastructure):
            found = import_older(source, given.results, cores=cores, note=given.note)
            for note in found.notes:
                print(f"! {note}")
            for path in found.made:
                print(f"imported {source.raw} as {path}")
            for path in found.present:
                print(f"{source.raw} is imported already: {path}")
    except (GrammarError, LegacyError, RunError) as error:
        return complain("import", str(error))
    return 0
