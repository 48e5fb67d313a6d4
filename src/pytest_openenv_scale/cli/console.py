"""Output of the commands: lines in colour, an error in one line, and which stored run an argument names."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_openenv_scale.config.options import DEFAULT_RESULTS
from pytest_openenv_scale.results.location import default_results, stored_results

if TYPE_CHECKING:
    from pytest_openenv_scale.reporting import Line

PROGRAM = "openenv-scale"
USAGE_ERROR = 2
WIDTH = 120
"""Columns where standard output is no terminal and COLUMNS is not set."""

_STYLES = {"bold": "1", "light": "2", "red": "31", "green": "32", "yellow": "33"}


def terminal_width() -> int:
    """Return the columns of the terminal."""
    return shutil.get_terminal_size((WIDTH, 24)).columns


def print_block(lines: Sequence[Line]) -> None:
    """Print lines as `print_lines` does, and an empty line."""
    print_lines(lines)
    print()


def print_lines(lines: Sequence[Line]) -> None:
    """Print lines with their markup, in colour on a terminal unless NO_COLOR is set."""
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for text, markup in lines:
        codes = ";".join(_STYLES[name] for name, enabled in markup.items() if enabled)
        print(f"\x1b[{codes}m{text}\x1b[0m" if coloured and codes else text)


def stop_printing() -> None:
    """Discard all further standard output, that at exit too: its reader is gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_error(command: str, problem: str) -> int:
    """Say on standard error what is wrong, in one line, and return the exit code of a usage error."""
    sys.stdout.flush()
    print(f"{PROGRAM} {command}: {problem}", file=sys.stderr)
    return USAGE_ERROR


def add_results(parser: argparse.ArgumentParser, what: str = "where runs are") -> None:
    """Declare the option that names the folder of runs."""
    parser.add_argument("--results", type=Path, metavar="DIR", help=f"{what} (default: {DEFAULT_RESULTS})")


def run_folders(arguments: argparse.Namespace) -> tuple[Path, ...]:
    """Return the folders of runs: that of `--results`, else those of the working directory."""
    return stored_results(Path()) if arguments.results is None else (arguments.results,)


def results_folder(arguments: argparse.Namespace) -> Path:
    """Return the folder that runs are written into: that of `--results`, else the one of the working directory."""
    return arguments.results or default_results(Path())


def named_run(name: str, arguments: argparse.Namespace) -> Path:
    """Return the directory of a stored run, however it ended.

    Raises:
        GrammarError: it has no name at all.
        RunError: there is no such run.
    """
    from pytest_openenv_scale.config.limits import parse_reference
    from pytest_openenv_scale.results.references import find_run

    return find_run(parse_reference(name, Path()), run_folders(arguments), to_compare=False)
