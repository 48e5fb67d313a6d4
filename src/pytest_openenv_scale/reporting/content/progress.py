"""What is said while something goes on: the parts of one line, and which of them there is room for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pytest_openenv_scale.config.plan import Cell, Curve
from pytest_openenv_scale.core.measure_lock import LockHolder
from pytest_openenv_scale.core.parsing import format_number, parse_arrival
from pytest_openenv_scale.core.text import on_one_line, shorten
from pytest_openenv_scale.results.progress import LoadProgress, Position

from .wording import is_steady, load_name

SEPARATOR = " · "
_SHORTEST_DETAIL = 12
"""Of a detail, such as the last line of a log, at least so many characters are shown, or nothing."""


class Part(NamedTuple):
    """A part of the line, and when it is left out for want of room: the highest `drop` first, 0 never."""

    text: str
    drop: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """What goes on at one moment: the parts of the line and how much is done, as a share; None where nobody knows.

    `detail` comes last and is cut to the room there is: the last line of a log, or what is waited for.
    """

    parts: tuple[Part, ...]
    done: float | None = None
    detail: str = ""

    def text(self, width: int) -> str:
        """Return the line, at most so many columns of it."""
        parts = list(self.parts)
        while len(_joined(parts)) > width and any(part.drop for part in parts):
            parts.remove(max(parts, key=lambda part: part.drop))
        text = shorten(_joined(parts), width)
        room = width - len(text) - len(SEPARATOR)
        detail = on_one_line(self.detail)
        if detail and room >= min(len(detail), _SHORTEST_DETAIL):
            text += SEPARATOR + shorten(detail, room)
        return text


def _joined(parts: Sequence[Part]) -> str:
    return SEPARATOR.join(part.text for part in parts)


def clock_text(seconds: float) -> str:
    """Return a duration as a clock shows it: "0:07", "12:30", "1:02:03"."""
    whole = max(int(seconds), 0)
    minutes, hours = whole // 60, whole // 3600
    return f"{hours}:{minutes % 60:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def curve_name(curve: Curve) -> str:
    """Return which curve it is: "local · ws · wait 1 s"."""
    return _joined(_curve_parts(curve))


def _curve_parts(curve: Curve) -> list[Part]:
    wait = [] if curve.wait is None else [Part(f"wait {format_number(curve.wait)} s", 5)]
    return [Part(curve.infrastructure), Part(curve.mode, 6), *wait]


def sweep_status(
    cell: Cell, position: Position, progress: LoadProgress | None, elapsed_s: float, detail: str = ""
) -> Status:
    """Return how far a sweep is that has taken so many seconds; `progress` is None before a repetition has any."""
    repetition_s, steps = (0.0, 0) if progress is None else (progress.elapsed_s, progress.steps)
    left_s = position.left_s(repetition_s, steps)
    parts = [*_curve_parts(cell.curve), Part(load_name(cell)), *_position_parts(position)]
    if progress is not None:
        parts += _load_parts(cell, position, progress)
    about = "≤ " if position.is_probe else "~"
    parts += [Part(clock_text(elapsed_s), 4), Part(f"{about}{clock_text(left_s)} left", 1)]
    return Status(tuple(parts), elapsed_s / (elapsed_s + left_s) if elapsed_s + left_s else 0.0, detail)


def _position_parts(position: Position) -> list[Part]:
    if position.cells is None:
        between = _between(position.passed, position.failed)
        return [Part(f"probe {position.number}", 1), *([Part(between, 2)] if between else [])]
    repeated = [] if position.repetitions == 1 else [Part(f"rep {position.repetition}/{position.repetitions}", 5)]
    return [Part(f"cell {position.number}/{position.cells}", 1), *repeated]


def _between(passed: int | None, failed: int | None) -> str:
    """Return "64..128", with a question mark for what is not known yet; nothing before anything is."""
    low, high = ("?" if batch is None else f"{batch:,}" for batch in (passed, failed))
    return "" if low == high else f"{low}..{high}"


def _load_parts(cell: Cell, position: Position, progress: LoadProgress) -> list[Part]:
    steps = "" if position.steps is None else f"/{position.steps:,}"
    # How many sessions slots will play nobody knows.
    of_all = "" if is_steady(cell.curve) else f"/{progress.asked:,}"
    return [
        Part(f"step {progress.steps:,}{steps}", 3),
        Part(f"{progress.open:,} open", 2),
        Part(f"{progress.finished:,}{of_all} over", 7),
        *([Part(f"{progress.failed:,} failed", 1)] if progress.failed else []),
        *_time_parts(cell, progress.elapsed_s),
    ]


def _time_parts(cell: Cell, elapsed_s: float) -> list[Part]:
    """Return "12 of 60 s" where it is known how long sessions begin, and thereafter that none does."""
    length_s = parse_arrival(cell.arrival).seconds
    if length_s is None:
        return []
    return [Part(f"{elapsed_s:.0f} of {length_s:.0f} s" if elapsed_s < length_s else "none begins any more", 2)]


def activity_status(subject: str, activity: str, elapsed_s: float, detail: str = "") -> Status:
    """Return what is done with something, such as a target that starts, for how long, and what was heard of it last."""
    return Status((Part(subject), Part(activity), Part(clock_text(elapsed_s))), detail=detail)


def lock_words(holder: LockHolder) -> str:
    """Return who measures on this machine, as the end of a sentence that says that it is waited for."""
    return f"held by {holder}"


def check_status(text: str, elapsed_s: float, bound_s: float) -> Status:
    """Return what `openenv-scale check` asks, and how much of its time has passed."""
    time_parts = [Part(f"{elapsed_s:.0f} s of {bound_s:.0f} s")] if elapsed_s >= 1 else []
    return Status((Part(text), *time_parts), elapsed_s / bound_s if bound_s else None)
