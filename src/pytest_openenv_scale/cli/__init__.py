"""What `openenv-scale` can do: one module per command.

A module has `HELP` (one line), `add(parser)` which declares its arguments, and `run(given) -> int` which does the work,
returns the exit code and whose docstring is the description. Only the command that is run imports anything heavy.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Protocol

from . import check, compare, deploy, export, gc, history, import_, pull, push, report, self_test, serve, show


class Command(Protocol):
    """A module of this package."""

    @property
    def HELP(self) -> str:
        """What the command does, in one line."""
        ...

    def add(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        ...

    def run(self, given: argparse.Namespace) -> int:
        """Do the work and return the exit code."""
        ...


COMMANDS: Mapping[str, Command] = {
    "serve": serve,
    "check": check,
    "self-test": self_test,
    "show": show,
    "report": report,
    "compare": compare,
    "history": history,
    "export": export,
    "import": import_,
    "deploy": deploy,
    "push": push,
    "pull": pull,
    "gc": gc,
}
"""The commands by name, in the order `--help` shows them."""
