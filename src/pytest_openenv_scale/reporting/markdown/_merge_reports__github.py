"""The step summary of GitHub Actions: verdicts first, then as many curves as fit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.core.run import Run

from . import markdown

VARIABLE = "GITHUB_STEP_SUMMARY"

LIMIT_BYTES = 900_000
"""GitHub drops a summary above 1 MiB per step as a whole; other programs write into the same file."""

_ROOM_FOR_NOTICE = 300


def render(run: Run, limit: int = LIMIT_BYTES) -> str:
    """Return the summary in at most `limit` bytes of UTF-8; what is left out is said."""
    head = markdown.overview(run)
    room = limit - _ROOM_FOR_NOTICE
    if _size(head) > room:
        return _whole_lines(head, room) + "\n\n*Cut here: GitHub takes no more; see `report.md`.*\n"
    sections = [markdown.curve_section(view.record, curve) for view in run.sweeps for curve in view.curves]
    kept = [head]
    for index, section in enumerate(sections):
        if sum(_size(part) + 1 for part in (*kept, section)) > room:
            left = text_of.count_of(len(sections) - index, "curve")
            kept.append(f"*{left} left out: GitHub takes no more; see `report.md`.*\n")
            break
        kept.append(section)
    return "\n".join(kept)


def append_step_summary(run: Run, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Append to the file that GITHUB_STEP_SUMMARY names; None where there is none or no room is left in it.

    Raises:
        OSError: the file cannot be written.
    """
    name = environ.get(VARIABLE)
    if not name:
        return None
    path = Path(name)
    taken = path.stat().st_size if path.exists() else 0
    room = LIMIT_BYTES - taken - 1
    if room <= 2 * _ROOM_FOR_NOTICE:
        return None
    with path.open("a", encoding="utf-8") as file:
        file.write(("\n" if taken else "") + render(run, room))
    return path


def _size(text: str) -> int:
    return len(text.encode())


def _whole_lines(text: str, limit: int) -> str:
    return text.encode()[:limit].decode(errors="ignore").rpartition("\n")[0]
