"""Ties a process to the one that started it, then becomes the command it was given.

Run by path (`python -I parent_death.py --parent PID --nofile N -- COMMAND…`) so that nothing runs between fork
and exec in the parent, which may have threads. On Linux the kernel sends SIGKILL (or another signal, with
`--signal`) to the command when the thread that started it ends, however it ends (`PR_SET_PDEATHSIG` survives
exec); elsewhere only an orderly end of the parent stops the command.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1
_FALLBACK_LIMITS = (1 << 18, 1 << 16, 10_240)
"""What is tried where the hard limit cannot be set: macOS reports "infinity" and allows less."""


def end_with_parent(parent: int, signal_number: int = signal.SIGKILL) -> None:
    """Have the kernel send this process `signal_number` when `parent` dies; exit at once if it is already gone.

    Linux only; a no-op elsewhere.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)


def limit_descriptors(soft: int | None) -> None:
    """Set the soft limit of open descriptors to `soft`, or to the hard limit, or near it, where it is None."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for limit in (hard, *_FALLBACK_LIMITS) if soft is None else (soft,):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            return
        except (OSError, ValueError) as error:
            if soft is not None:
                sys.exit(f"openenv-scale: nofile={soft} cannot be set: {error} (hard limit {hard})")


def main(arguments: list[str]) -> None:
    """Tether this process, set its limits and exec the command after `--`."""
    own_arguments, command = arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :]
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--nofile", type=int)
    parser.add_argument("--signal", type=int, default=signal.SIGKILL)
    parsed = parser.parse_args(own_arguments)
    end_with_parent(parsed.parent, parsed.signal)
    limit_descriptors(parsed.nofile)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"openenv-scale: {command[0]} cannot be run: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
