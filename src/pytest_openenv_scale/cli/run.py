"""`openenv-scale run`: the scaling test of the suite, on servers that are named, without a test file."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from pytest_openenv_scale.config.options import OPTIONS

from .console import print_error

USAGE_ERROR = 4
"""The exit code of pytest where it is called wrongly."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments: every option of pytest that is ours, without its prefix and with it."""
    parser.usage = "openenv-scale run URL|SPEC... [options] [-- pytest's own options]"
    parser.add_argument(
        "servers",
        nargs="*",
        metavar="URL|SPEC",
        help="a server that runs already, or what to start, such as local or docker:IMAGE; several are compared",
    )
    for option in OPTIONS:
        parser.add_argument(f"--{option.name}", **option.form)
        hidden: dict[str, Any] = {**option.form, "help": argparse.SUPPRESS}
        parser.add_argument(option.flag, **hidden)


def run(arguments: argparse.Namespace) -> int:
    """Measure how many sessions servers hold, by the packaged test; output and exit codes are those of pytest.

    It is pytest --pyargs pytest_openenv_scale.suite -m scaling with the --openenv- options given here. Results go to
    .openenv-results where you are. Settings openenv_… of a pytest.ini there hold, its addopts do not. What stands
    behind -- goes to pytest as it is: openenv-scale run URL -- -v --junitxml=results.xml
    """
    from pytest_openenv_scale.config.run_command import pytest_arguments

    values = vars(arguments)
    if not (arguments.servers or values["openenv_url"] or values["openenv_target"]):
        print_error("run", "name a server: a URL such as https://my-environment.example, or what to start, as local")
        return USAGE_ERROR
    if own := next((word for word in arguments.passed_on if word.startswith("--openenv-")), None):
        print_error("run", f"{own.partition('=')[0]} is no option of pytest's own; write it before the --")
        return USAGE_ERROR
    sys.stdout.flush()
    # -P: what lies where it is started is not imported in place of pytest or the standard library.
    words = [*pytest_arguments(arguments.servers, values), *arguments.passed_on]
    return os.execv(sys.executable, [sys.executable, "-P", "-m", "pytest", *words])
