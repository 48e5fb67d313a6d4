"""`openenv-scale self-test`: options in, a table and one sentence per mode out, and the exit code."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

from ..core.grammar import GrammarError, parse_count, parse_modes, parse_seconds
from ..core.limits import usable_cores
from ..reports.text import Page
from .climb import Climb
from .figures import Asked, SelfTest
from .show import opening, rung_line, sentence

UNRESOLVED, INTERRUPTED = 1, 130

_WIDTH = 120
_MAX_PROCESSES = 256


def asked_for(given: argparse.Namespace) -> Asked:
    """Read the options of a command line.

    Raises:
        GrammarError: a value cannot be used; one line naming the option.
    """
    return Asked(
        parse_modes(given.modes),
        parse_count(given.max_batch, what="--max-batch"),
        parse_seconds(given.wait, what="--wait"),
        None if given.processes == "auto" else parse_count(given.processes, maximum=_MAX_PROCESSES, what="--processes"),
        parse_seconds(given.time, positive=True, what="--time"),
    )


def run_self_test(asked: Asked, json_path: Path | None) -> int:
    """Measure, print while measuring, and return the exit code; 130 where Ctrl-C ended it.

    Raises:
        SelfTestError: the null server cannot be started, or not a single session fits this machine.
        GrammarError: the JSON file cannot be written.
    """
    if json_path is not None:
        _check_writable(json_path)
    page = _Screen()
    climb = Climb(asked, lambda rung: page.show(rung_line(rung)))
    for line in opening(asked, usable_cores()):
        page.show(line)
    code = 0
    try:
        found = climb.run()
    except KeyboardInterrupt:
        found, code = climb.so_far(), INTERRUPTED
    page.show("")
    for ladder in found.ladders:
        page.tell(sentence(ladder, asked.time_s))
    if json_path is not None:
        _write(json_path, found)
    unresolved = any(ladder.resolved_batch is None for ladder in found.ladders)
    return code or (UNRESOLVED if unresolved else 0)


class _Screen:
    """Standard output, a line as soon as it is known, in ASCII where it speaks nothing else."""

    def __init__(self) -> None:
        self._width = shutil.get_terminal_size((_WIDTH, 24)).columns

    def show(self, line: str) -> None:
        """Print a line as it is."""
        page = Page(self._width, sys.stdout.encoding)
        page.verbatim(line)
        print(page.text, flush=True)

    def tell(self, text: str) -> None:
        """Print a sentence, wrapped to the terminal."""
        page = Page(self._width, sys.stdout.encoding)
        page.say(text, indent=0)
        print(page.text, flush=True)


def _check_writable(path: Path) -> None:
    """Refuse, before anything is measured, a file that cannot be written."""
    if path.is_dir():
        raise GrammarError(f"--json: {path} is a directory; name a file")
    if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise GrammarError(f"--json: {path} cannot be written; name a file in a directory that can")


def _write(path: Path, found: SelfTest) -> None:
    try:
        path.write_text(json.dumps(found.to_json(), ensure_ascii=False, indent=1) + "\n")
    except OSError as error:
        raise GrammarError(f"--json: {path} cannot be written: {error.strerror}") from None
