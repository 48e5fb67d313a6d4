"""`openenv-scale serve`: the benchmark environment."""

from __future__ import annotations

import argparse

HELP = "serve the benchmark environment"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--host", help="address to listen on (HOST, else 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on, 0 for a free one (PORT, else 8000)")
    parser.add_argument("--workers", type=int, help="worker processes (WORKERS, else one per core)")
    parser.add_argument(
        "--max-envs", type=int, help="sessions per worker, 0 for no limit (MAX_CONCURRENT_ENVS, else no limit)"
    )
    parser.add_argument("--server", default="hypercorn", help="hypercorn or uvicorn (default: hypercorn)")


def run(given: argparse.Namespace) -> int:
    """Serve the benchmark environment until it is stopped; what is not given is read from the environment."""
    from pytest_openenv_scale.server.serve import serve

    return serve(given.host, given.port, given.workers, given.max_envs, given.server)
