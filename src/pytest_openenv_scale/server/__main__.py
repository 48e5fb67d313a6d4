"""`python -m pytest_openenv_scale.server`: the benchmark environment on its own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .serve import DEFAULT_BACKLOG, SERVERS, serve


def add_serve_options(parser: argparse.ArgumentParser) -> None:
    """The options of `serve`; their names in the parsed namespace are its parameters."""
    parser.add_argument("--host", help="address to listen on (HOST, 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port, 0 for any free one (PORT, 8000)")
    parser.add_argument("--workers", type=int, help="processes (WORKERS, one per usable core)")
    parser.add_argument("--max-envs", type=int, help="sessions at once per worker (MAX_CONCURRENT_ENVS, 0 = unlimited)")
    parser.add_argument("--server", choices=SERVERS, default=SERVERS[0], help="ASGI server (%(default)s)")
    parser.add_argument(
        "--backlog",
        type=int,
        default=DEFAULT_BACKLOG,
        help="connections waiting to be accepted (%(default)s)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Serve as the options say; the exit code."""
    parser = argparse.ArgumentParser(prog="openenv-scale serve", description=__doc__)
    add_serve_options(parser)
    return serve(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    raise SystemExit(main())
