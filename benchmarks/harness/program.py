"""The shape of every benchmark program: options, a problem in one line, a table, JSON for other programs."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from .problem import Problem


def options(description: str, *, sessions: int | None = None, runs: int | None = None) -> argparse.ArgumentParser:
    """Return a parser with the options that all programs have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if sessions is not None:
        parser.add_argument(
            "--sessions", type=positive, default=sessions, metavar="N", help="sessions at once (default: %(default)s)"
        )
    if runs is not None:
        parser.add_argument(
            "--runs", type=positive, default=runs, metavar="R", help="runs; medians are printed (default: %(default)s)"
        )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every run's figures there")
    return parser


def add_clients(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add the option that names the clients to compare."""
    parser.add_argument(
        "--clients",
        type=_names,
        default=",".join(names),
        metavar="A,B",
        help="who plays; k6 only where installed (default: %(default)s)",
    )


def add_wait(parser: argparse.ArgumentParser) -> None:
    """Add the option for the wait of a step."""
    parser.add_argument(
        "--wait",
        type=float,
        default=1.0,
        metavar="S",
        help="seconds the server waits in each step (default: %(default)s)",
    )


def positive(text: str) -> int:
    """Read a count of at least one."""
    if (count := int(text)) < 1:
        raise ValueError
    return count


def start(program: Callable[[], None]) -> None:
    """Run a program and exit: 0 whatever the figures, 2 with one line where it cannot run, 130 after Ctrl-C.

    Servers and clients end with it, also when it is asked to end (SIGTERM, exit code 143).
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        program()
    except Problem as problem:
        print(f"{Path(sys.argv[0]).name}: {problem}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns: the first to the left, the others to the right, a last one of remarks to the left."""
    lines = [heads, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for line in lines:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:-1], widths[1:-1], strict=True)]
        print("  ".join([*cells, line[-1]]).rstrip())


def counted(runs: int) -> str:
    """Say how many runs the medians are of."""
    return "1 run" if runs == 1 else f"{runs} runs, medians (range)"


def note(text: str) -> None:
    """Say on stderr what is going on; the table on stdout stays clean."""
    print(text, file=sys.stderr, flush=True)


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """Return the median of the runs, and their range where there is more than one."""
    middle = format(median(values), form)
    return middle if len(values) == 1 else f"{middle} ({min(values):{form}}–{max(values):{form}})"


def write_json(path: Path | None, document: dict[str, Any]) -> None:
    """Write the figures to a file, if one was asked for.

    Raises:
        Problem: it cannot be written.
    """
    if path is None:
        return
    try:
        path.write_text(json.dumps(document, indent=1) + "\n")
    except OSError as error:
        raise Problem(f"--json {path}: {error.strerror}") from None


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
