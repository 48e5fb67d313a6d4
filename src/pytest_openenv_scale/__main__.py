"""The `openenv-scale` command; `python -m pytest_openenv_scale` is the same."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import NoReturn

from .cli import COMMANDS
from .cli.console import PROGRAM, USAGE_ERROR, print_error, stop_printing
from .core.errors import ScaleError


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line."""

    usage_error = USAGE_ERROR

    def error(self, message: str) -> NoReturn:
        self.exit(self.usage_error, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 2 where the input is wrong; the others are the command's own."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    own = words.index("--") if words[:1] == ["run"] and "--" in words else len(words)
    options, unknown = _parser().parse_known_args(words[:own], argparse.Namespace(passed_on=words[own + 1 :]))
    if unknown:
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except ScaleError as error:
        return print_error(options.command, str(error))
    except BrokenPipeError:
        stop_printing()
        return 0
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=PROGRAM, description="How many sessions does an OpenEnv environment server hold at once?")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {version('pytest-openenv-scale')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(name, help=command.help, description=command.run.__doc__)
        subparser.usage_error = command.usage_error
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run, command=name, parser=subparser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
