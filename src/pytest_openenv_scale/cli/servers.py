"""`openenv-scale show`: what a target would start."""

from __future__ import annotations

import argparse
from pathlib import Path

from .console import complain

HELP = "show what a target would start, and start nothing"
_LARGEST_BATCH = 128


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("specs", nargs="+", metavar="SPEC", help="a target, as --openenv-target takes it")
    parser.add_argument(
        "--batch",
        type=int,
        default=_LARGEST_BATCH,
        metavar="N",
        help=f"the largest batch, to which backlogs and breakers are sized (default: {_LARGEST_BATCH})",
    )
    parser.add_argument("--root", type=Path, metavar="DIR", help="where openenv.yaml is (default: the current folder)")


def run(given: argparse.Namespace) -> int:
    """Print the commands, scripts and configurations a target would start, without secrets; nothing is started.

    Exit code 2 where a target cannot be read, or what it names is not there.
    """
    from pytest_openenv_scale.core.endpoint import TargetError
    from pytest_openenv_scale.core.grammar import GrammarError, parse_count, parse_target, redact_target
    from pytest_openenv_scale.core.redact import redact_text
    from pytest_openenv_scale.targets.context import TargetContext
    from pytest_openenv_scale.targets.describe import describe

    root = (given.root or Path.cwd()).resolve()
    try:
        context = TargetContext(root, parse_count(given.batch, what="--batch"))
        shown = [(spec, describe(spec, context)) for spec in map(parse_target, given.specs)]
    except (GrammarError, TargetError) as error:
        return complain("show", str(error))
    for spec, parts in shown:
        print(f"### {redact_text(redact_target(spec))}")
        for part in parts:
            print(f"\n## {part.title}\n\n{part.text}")
        print()
    return 0
