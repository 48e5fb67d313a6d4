"""Slurm's own programs: how they are called, and what they say when they fail."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping

from pytest_openenv_scale.core.endpoint import TargetError

_CALL_S = 60.0
"""Seconds a program of Slurm's gets: a busy controller lets it wait."""

_PREFIX = re.compile(r"^(?:\w+: )?(?:error|fatal): ")
_SHOWN = 3


class SlurmError(TargetError):
    """A program of Slurm's is missing or failed; one line, in its own words."""


def call(*command: str, stdin: str | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a program of Slurm's and return what it prints; `env` is added to the environment.

    It runs in a session of its own: a Ctrl-C at the terminal is for us to handle, not for it.

    Raises:
        SlurmError: it is not there, failed, or did not answer within a minute.
    """
    try:
        done = subprocess.run(
            command,
            input=stdin or "",
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_CALL_S,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise SlurmError(
            f"target slurm: there is no {command[0]} on PATH; run this on a login node of the cluster, "
            "or load its Slurm module first"
        ) from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"target slurm: {command[0]} did not answer within {_CALL_S:.0f} s") from None
    except OSError as error:
        raise SlurmError(f"target slurm: {command[0]} cannot be run: {error.strerror}") from None
    if done.returncode:
        raise SlurmError(f"target slurm: {command[0]}: {first_words(done.stderr or done.stdout)}")
    return done.stdout


def first_words(text: str) -> str:
    """Return what a program of Slurm's said as one line, without its own name on each."""
    lines = [_PREFIX.sub("", line.strip()) for line in text.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines[:_SHOWN])) or "it failed and said nothing"
