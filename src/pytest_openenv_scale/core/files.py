"""Files: written in one step, locked while their owner lives, by `--json` or by hand; the end of error output."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from .errors import GrammarError, RunError
from .parsing import short_repr


@contextmanager
def exclusive_lock(path: Path) -> Generator[None]:
    """Hold the lock of a file while the block runs, waiting for whoever has it."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class LifetimeLock:
    """A lock kept for a lifetime: whoever asks `is_locked` can tell whether its holder still lives."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def release(self) -> None:
        """Give the lock up; doing so twice is harmless."""
        self._file.close()


def is_locked(path: Path) -> bool:
    """Say whether a living process holds the lock of a file."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


_TAIL_BYTES = 64 * 1024
_MAX_REASON_LENGTH = 300
_TRACEBACK = "Traceback (most recent call last):"
_IGNORED = "Exception ignored"


def read_tail(descriptor: int, since: int = 0) -> bytes:
    """Return the last 64 KiB of an open file, nothing of it from before the position `since`."""
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, _TAIL_BYTES, max(since, size - _TAIL_BYTES))


class ErrorOutput:
    """What a process writes to standard error: a file without a name, `file`, of which only the end is ever read."""

    def __init__(self) -> None:
        self.file = _unnamed_file()

    def text(self) -> str:
        """Return the end of what was written, at most 64 KiB."""
        return read_tail(self.file.fileno()).decode(errors="replace")

    def reason(self) -> str | None:
        """Return the line that says why the process ended, None where nothing was written."""
        return last_error_in(self.text())

    def close(self) -> str:
        """Close the file and return the end of what was written; empty where it was closed before."""
        tail = "" if self.file.closed else self.text()
        self.file.close()
        return tail


def _unnamed_file() -> BinaryIO:
    return tempfile.TemporaryFile(buffering=0)


def last_error_in(text: str) -> str | None:
    """Return the exception that ended a process, of what it wrote last; else the last line, else None.

    A message of several lines gives its first, at most 300 characters of it.
    """
    lines = text.splitlines()
    for number in range(len(lines) - 1, -1, -1):
        ignored = number > 0 and lines[number - 1].startswith(_IGNORED)
        if lines[number] == _TRACEBACK and not ignored:
            exception_line = next((line for line in lines[number + 1 :] if line and not line[0].isspace()), None)
            if exception_line is not None:
                return exception_line[:_MAX_REASON_LENGTH]
    return next((line.strip()[:_MAX_REASON_LENGTH] for line in reversed(lines) if line.strip()), None)


@contextmanager
def replacing(path: Path, *, synced: bool = False) -> Generator[BinaryIO]:
    """Yield the file that takes the place of `path` once the block is over: it is complete or as it was before.

    `synced` makes its content survive a power cut.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            if synced:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def json_bytes(document: Any) -> bytes:
    """Return JSON as people read it, a line feed at its end."""
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "replace")


@contextmanager
def json_output(path: Path | None) -> Generator[Callable[[Any], None]]:
    """Yield what writes the document of `--json FILE`; without a file it writes nothing.

    `-` is standard output, which gets nothing else: what is printed meanwhile goes to standard error.

    Raises:
        GrammarError: the file is a directory, or may not be written; before anything is measured.
    """
    if path is None:
        yield lambda document: None
    elif path == Path("-"):
        output = sys.stdout
        with redirect_stdout(sys.stderr):
            yield partial(_print_json, output)
    else:
        _check_json_file(path)
        yield partial(_write_json_file, path)


def _print_json(output: TextIO, document: Any) -> None:
    try:
        output.buffer.write(json_bytes(document))
        output.flush()
    except BrokenPipeError:  # The exit code is an answer too: nothing more is written, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())


def _check_json_file(path: Path) -> None:
    if path.is_dir():
        raise GrammarError(f"--json: {path} is a directory; name a file")
    if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise GrammarError(f"--json: {path} cannot be written; name a file in a directory that can")


def _write_json_file(path: Path, document: Any) -> None:
    """Write the file, which may also be a device."""
    try:
        path.write_bytes(json_bytes(document))
    except OSError as error:
        raise GrammarError(f"--json: {path} cannot be written: {error.strerror}") from None


def replace_file(path: Path, content: str) -> Path:
    """Write a file and return its path; its directory is made where it is missing.

    Raises:
        RunError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(content.encode("utf-8", "replace"))
    except FileExistsError as error:
        raise RunError(f"the report cannot be written: {path}: {error.filename} is a file, not a folder") from None
    except OSError as error:
        raise RunError(f"the report cannot be written: {path}: {error.strerror}") from None
    return path


MAX_WRITTEN_BYTES = 16 * 1024 * 1024
"""The largest file of lines that a setting may name."""


def read_written_lines(name: str, directory: Path, *, holds: str, example: str) -> dict[int, str]:
    """Return the lines of a text file that a setting names, by number from 1, without those that are empty.

    The name is relative to `directory`. `holds` says in errors what the file has to hold, `example` is a name.

    Raises:
        GrammarError: it cannot be read, is larger than 16 MiB, no UTF-8 text, or empty.
    """
    if not name or "\0" in name:
        raise GrammarError(f'a file has no name; write for example "{example}"')
    path = directory / name
    try:
        if path.stat().st_size > MAX_WRITTEN_BYTES:
            raise GrammarError(f"file {short_repr(name)} is larger than {MAX_WRITTEN_BYTES >> 20} MiB; shorten it")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise GrammarError(f"cannot read file {short_repr(str(path))}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise GrammarError(f"file {short_repr(name)} is not UTF-8 text; write {holds}") from None
    written = {number: line for number, line in enumerate(lines, 1) if line.strip()}
    if not written:
        raise GrammarError(f"file {short_repr(name)} is empty; write {holds}")
    return written
