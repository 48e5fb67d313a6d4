"""The sessions of a `raw.jsonl` as repetitions of cells, each with its line of `summary.csv`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from .files import RAW, SUMMARY, RawRow, SummaryRow


@dataclass(frozen=True, slots=True)
class Block:
    """The sessions of one repetition of a cell, in the order of the file."""

    rows: tuple[RawRow, ...]

    @property
    def batch(self) -> int:
        """How many sessions were asked for."""
        return self.rows[0].batch_size or len(self.rows)

    @property
    def key(self) -> tuple[str, float | None, int]:
        """What names its cell in a file: mode, wait and batch."""
        return self.rows[0].mode, self.rows[0].wait_requested, self.batch

    @property
    def started_at(self) -> datetime:
        """The earliest moment of its sessions, UTC."""
        return min(row.at for row in self.rows)


def blocks(rows: Iterable[RawRow]) -> Iterator[Block]:
    """Cut a file into repetitions: a new one starts with another cell, or where a request id comes again."""
    held: list[RawRow] = []
    seen: set[int] = set()
    for row in rows:
        if held and (row.request_id in seen or _cell_of(row) != _cell_of(held[0])):
            yield Block(tuple(held))
            held, seen = [], set()
        held.append(row)
        seen.add(row.request_id)
    if held:
        yield Block(tuple(held))


def _cell_of(row: RawRow) -> tuple[object, ...]:
    return row.mode, row.wait_requested, row.batch_size, row.hardware


class Matching:
    """Gives each block its line of the summary: the n-th of a cell belongs to the n-th line of that cell."""

    def __init__(self, lines: Sequence[SummaryRow]) -> None:
        self._left = list(lines)
        self._runs: dict[int, int] = {}
        seen: set[tuple[object, ...]] = set()
        run = 0
        for line in lines:
            told = (*line.key, line.texts.get("hardware"), line.repetition)
            if told in seen:
                run += 1
                seen.clear()
            seen.add(told)
            self._runs[line.line] = run
        self._current = 0

    def take(self, block: Block) -> SummaryRow | None:
        """Return the first line left of the block's cell, or None."""
        for line in self._left:
            hardware = line.texts.get("hardware"), block.rows[0].hardware
            if line.key == block.key and (not all(hardware) or hardware[0] == hardware[1]):
                self._left.remove(line)
                return line
        return None

    def run_of(self, line: SummaryRow | None) -> int:
        """Return the number of the run a line belongs to: a new one starts where a repetition comes again."""
        if line is not None:
            self._current = self._runs[line.line]
        return self._current

    @property
    def left(self) -> list[SummaryRow]:
        """The lines no block belongs to."""
        return self._left


def differences(block: Block, line: SummaryRow | None) -> tuple[str, ...]:
    """Say where the sessions and their line of the summary do not agree; the sessions are what counts."""
    if line is None:
        return ()
    good = sum(row.success for row in block.rows)
    told = line.texts.get("successful", "")
    found: list[str] = []
    if line.sessions != len(block.rows):
        found.append(f"{SUMMARY} speaks of {line.sessions} sessions, {RAW} has {len(block.rows)}")
    if told and told != str(good):
        found.append(f"{SUMMARY} counts {told} successful sessions, {RAW} has {good}")
    return tuple(found)
