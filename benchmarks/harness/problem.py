"""What keeps a benchmark from running."""

from __future__ import annotations


class Problem(Exception):
    """A benchmark cannot run on this machine, or a client gave no figures; one line for the person who started it."""
