"""`openenv-scale self-test`: what this client resolves here."""

from __future__ import annotations

import argparse
from pathlib import Path

from .console import complain

HELP = "measure what this client resolves here"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--modes", default="ws,http", metavar="LIST", help="ws, http or both (default: ws,http)")
    parser.add_argument("--max-batch", default="16384", metavar="N", help="largest batch to try (default: 16384)")
    parser.add_argument("--wait", default="1s", metavar="TIME", help="what each step takes (default: 1s)")
    parser.add_argument("--processes", default="auto", metavar="N", help="load processes (default: auto)")
    parser.add_argument("--time", default="120s", metavar="TIME", help="end after about so long (default: 120s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found to this file as well")


def run(given: argparse.Namespace) -> int:
    """Find the batch up to which this client adds at most 5 ms (p50) and 40 ms (p99) to a server's latency here."""
    from pytest_openenv_scale.core.grammar import GrammarError
    from pytest_openenv_scale.core.load import LoadError
    from pytest_openenv_scale.selftest.command import asked_for, run_self_test
    from pytest_openenv_scale.selftest.null_process import SelfTestError

    try:
        return run_self_test(asked_for(given), given.json)
    except (GrammarError, LoadError, SelfTestError) as error:
        return complain("self-test", str(error))
