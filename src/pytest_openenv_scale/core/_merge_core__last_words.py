"""How a process ended and what it said last, for whoever reads why it is gone."""

from __future__ import annotations

import os
import signal
import tempfile
from typing import BinaryIO

_TAIL_BYTES = 64 * 1024
_LONGEST = 300
_TRACEBACK = "Traceback (most recent call last):"
_IGNORED = "Exception ignored"


def in_words(returncode: int) -> str:
    """Say what a return code of `subprocess` means."""
    if returncode >= 0:
        return f"exited with code {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"


def read_tail(descriptor: int, since: int = 0) -> bytes:
    """Return the last 64 KiB of an open file, nothing of it from before the position `since`."""
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, _TAIL_BYTES, max(since, size - _TAIL_BYTES))


class ErrorOutput:
    """What a process writes to standard error: a file without a name, `file`, of which only the end is ever read."""

    def __init__(self) -> None:
        self.file = _unnamed_file()

    def text(self) -> str:
        """Return the end of it."""
        return read_tail(self.file.fileno()).decode(errors="replace")

    def reason(self) -> str | None:
        """Return the line that says why the process ended, None where it said nothing."""
        return reason_in(self.text())

    def close(self) -> str:
        """Let go of the file and return the end of it; nothing where that was done before."""
        said = "" if self.file.closed else self.text()
        self.file.close()
        return said


def _unnamed_file() -> BinaryIO:
    return tempfile.TemporaryFile(buffering=0)


def reason_in(text: str) -> str | None:
    """Return the exception that ended a process, of what it wrote last; else the last line, else None.

    A message of several lines gives its first, at most 300 characters of it.
    """
    lines = text.splitlines()
    for number in range(len(lines) - 1, -1, -1):
        ignored = number > 0 and lines[number - 1].startswith(_IGNORED)
        if lines[number] == _TRACEBACK and not ignored:
            told = next((line for line in lines[number + 1 :] if line and not line[0].isspace()), None)
            if told is not None:
                return told[:_LONGEST]
    return next((line.strip()[:_LONGEST] for line in reversed(lines) if line.strip()), None)
