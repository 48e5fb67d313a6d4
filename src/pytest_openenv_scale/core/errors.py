"""The errors that more than one package raises or reports; each message is one clear line."""

from __future__ import annotations


class ScaleError(Exception):
    """What this package raises for a person to read: the first line says what was wrong and what to do instead."""


class TargetError(ScaleError):
    """A target could not be started, reached or used.

    The first line of the message says what was wrong and what to write or do instead; the tail of the
    server's log may follow on further lines.
    """


class GrammarError(ScaleError, ValueError):
    """A value that does not parse: one line saying what was wrong and what to write instead."""


class RunError(ScaleError):
    """A run directory that cannot be written, read or found: one line saying which, why and what to do."""
