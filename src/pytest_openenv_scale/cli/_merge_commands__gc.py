"""`openenv-scale gc`: what killed runs left behind."""

from __future__ import annotations

import argparse

from .console import USAGE_ERROR, complain

HELP = "remove what killed runs left behind"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "kinds", nargs="*", metavar="KIND", help="only this: docker, slurm, spaces or folders (default: all)"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be removed and leave it")


def run(given: argparse.Namespace) -> int:
    """Remove what runs left behind that were killed (SIGKILL, a crash); what a living run uses is left alone.

    Exit code 2 where a leftover cannot be removed, or a kind that is named cannot be looked for, else 0.
    """
    from pytest_openenv_scale.core.grammar import nearest
    from pytest_openenv_scale.gc import COLLECTORS, collect

    for kind in given.kinds:
        if kind not in COLLECTORS:
            return complain("gc", f"there is no kind {kind!r}{nearest(kind, COLLECTORS)}")
    found = collect(given.kinds, dry_run=given.dry_run)
    for line in found.lines:
        print(f"{'would remove' if given.dry_run else 'removed'} {line}")
    for problem in found.problems:
        complain("gc", problem)
    if not (found.lines or found.problems) and not (given.kinds and found.unreached):
        print("nothing left behind")
    for kind, why in found.unreached.items():
        if given.kinds:
            complain("gc", f"{kind}: {why}")
        else:
            print(f"{kind}: not looked for: {why}")
    return USAGE_ERROR if found.problems or (given.kinds and found.unreached) else 0
