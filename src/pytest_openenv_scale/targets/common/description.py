"""What a target would start, as text: its commands, environments, scripts and configurations."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import NamedTuple

HIDDEN = "***"


class DescriptionPart(NamedTuple):
    """One thing that would be started, or what it reads: a command, an environment, a script, a configuration."""

    title: str
    text: str


def shell_command(words: Sequence[str], environ: Mapping[str, str] | None = None) -> str:
    """Return a command as a shell takes it, each variable on a line of its own."""
    variables = [f"{name}={text if text == HIDDEN else shlex.quote(text)} \\" for name, text in (environ or {}).items()]
    return "\n".join([*sorted(variables), shlex.join(words)])
