"""The process a local target starts: an application on a socket it inherits."""

from __future__ import annotations

import argparse
import socket
import sys

from pytest_openenv_scale.core import own_process

from .serving import SERVERS, ServeSettings, serve


def command(serving: ServeSettings, descriptor: int) -> list[str]:
    """Return the command that serves on the inherited socket `descriptor`."""
    arguments = own_process.command(__name__, "--app", serving.app, "--fd", str(descriptor))
    arguments += [
        "--server",
        serving.server,
        "--workers",
        str(serving.workers),
        "--backlog",
        str(serving.backlog),
    ]
    if serving.limit_concurrency is not None:
        arguments += ["--limit-concurrency", str(serving.limit_concurrency)]
    return arguments


def main(arguments: list[str]) -> int:
    """Serve as the arguments say and return the exit code."""
    parser = argparse.ArgumentParser(prog="pytest_openenv_scale.targets.local.launch")
    parser.add_argument("--app", required=True)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--server", choices=SERVERS, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--backlog", type=int, required=True)
    parser.add_argument("--limit-concurrency", type=int)
    parsed = parser.parse_args(arguments)
    serving = ServeSettings(parsed.app, parsed.server, parsed.workers, parsed.backlog, parsed.limit_concurrency)
    return serve(serving, socket.socket(fileno=parsed.fd))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
