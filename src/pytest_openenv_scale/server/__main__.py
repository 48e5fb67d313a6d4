"""`python -m pytest_openenv_scale.server`: the benchmark environment on its own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .serve import serve
from .settings import add_serve_options


def main(argv: Sequence[str] | None = None) -> int:
    """Serve as the options say; the exit code."""
    parser = argparse.ArgumentParser(prog="openenv-scale serve", description=__doc__)
    add_serve_options(parser)
    return serve(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    raise SystemExit(main())
