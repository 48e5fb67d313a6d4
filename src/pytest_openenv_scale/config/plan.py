"""The plan of a run: its curves and cells, their order and their ids."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from hashlib import sha256

from pytest_openenv_scale.core.parsing import format_number
from pytest_openenv_scale.core.serialization import Count

from .limits import Limit, Slo, slo_for_curve
from .search import SearchRange

FAILURES_THAT_STOP = 2
"""A curve ends after this many failing batches in a row."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One point: `batch` sessions at once, each spending `wait` seconds per step (None: no wait axis).

    `think` is the think time between a reply and the next step as `config.think` writes it; empty without one.
    """

    test: str
    target: str
    infrastructure: str
    mode: str
    wait: float | None
    batch: Count
    steps: Count
    arrival: str
    think: str = ""

    @property
    def curve(self) -> Curve:
        """The curve this cell lies on, holding only this cell."""
        shared = {name: getattr(self, name) for name in _CURVE_FIELDS}
        return Curve(batches=(self.batch,), **shared)

    @property
    def id(self) -> str:
        """A short name, safe in file systems, the same in every run: "3f2a9c41d0-ws-w1-b256"."""
        return f"{self.curve.id}-b{self.batch}"


@dataclass(frozen=True, slots=True)
class Curve:
    """The cells of one test and target that differ in batch only; `batches` ascend."""

    test: str
    target: str
    infrastructure: str
    mode: str
    wait: float | None
    steps: Count
    arrival: str
    batches: tuple[Count, ...]
    think: str = ""

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells in the order they are measured: the smallest batch first."""
        shared = {name: getattr(self, name) for name in _CURVE_FIELDS}
        return tuple(Cell(batch=batch, **shared) for batch in self.batches)

    @property
    def id(self) -> str:
        """A short name, safe in file systems, the same in every run: "3f2a9c41d0-ws-w1"."""
        # What is not asked for has no part in it, so that it stays what it was before that could be asked for.
        values = [getattr(self, name) for name in _CURVE_FIELDS]
        identity = json.dumps([value for value in values if value != ""])
        wait = "" if self.wait is None else f"-w{format_number(self.wait)}"
        return f"{sha256(identity.encode()).hexdigest()[:10]}-{self.mode}{wait}"


_CURVE_FIELDS = tuple(field.name for field in fields(Curve) if field.name != "batches")


def curve_batches(batches: Iterable[int], slo: Slo) -> tuple[int, ...]:
    """Return the batches of a curve, ascending: those asked for and the one a `max_batch` limit names."""
    limit = slo.limit("max_batch")
    return tuple(sorted({*batches, *(() if limit is None else (int(limit.allowed),))}))


def plan_curves(
    *,
    test: str,
    target: str,
    infrastructure: str,
    modes: Sequence[str],
    waits: Sequence[float],
    batches: Sequence[int],
    steps: int,
    arrival: str,
    slo_for: Callable[[str, float | None], Slo],
    waitless: Collection[str] = (),
    think: str = "",
) -> tuple[Curve, ...]:
    """Lay out the curves of one test on one target: modes in the order given, then waits ascending.

    A mode that is `waitless`, as its sessions cannot be asked to wait or do not, has one curve, its wait None.
    `slo_for(mode, wait)` gives a curve's limits; the N of `max_batch` joins that curve's batches.
    """
    axis: Sequence[float] = sorted(set(waits))
    return tuple(
        Curve(
            test=test,
            target=target,
            infrastructure=infrastructure,
            mode=mode,
            wait=wait,
            steps=steps,
            arrival=arrival,
            batches=curve_batches(batches, slo_for(mode, wait)),
            think=think,
        )
        for mode in dict.fromkeys(modes)
        for wait in ([None] if mode in waitless else axis)
    )


def limit_below_wait(curve: Curve, slo: Slo, *, until_done: bool = False) -> Limit | None:
    """Return a latency limit that the waits of a curve break by themselves; None where there is none.

    Sessions that end when `done` comes wait for a single step at least, others for all of theirs.
    """
    wait = curve.wait or 0.0
    waited = {"step": wait, "total": wait if until_done else curve.steps * wait}
    for limit in slo.limits:
        least, allowed = waited.get(limit.kind.phase or "", 0.0), limit.allowed_seconds(curve.steps, curve.wait)
        if limit.kind.family == "latency" and allowed is not None and allowed < least:
            return limit
    return None


def largest_batch(batches: Iterable[int], slos: Iterable[Slo]) -> int:
    """Return the most sessions any cell can ask for, known before a server is started."""
    return max(batch for slo in (Slo(), *slos) for batch in curve_batches(list(batches), slo))


def largest_searched(
    search: SearchRange, slos: Iterable[Slo], curves: Iterable[tuple[str, float | None]], *, on_loopback: bool
) -> int:
    """Return the most sessions a search of these curves (mode and wait) asks for: of `auto` a `max_batch` limit's."""
    slos = tuple(slos)
    limits = [slo_for_curve(slos, wait, mode).limit("max_batch") for mode, wait in curves]
    needed = [int(limit.allowed) for limit in limits if limit is not None]
    if search.high is None and len(needed) == len(limits):
        return max(needed)
    return max([search.largest(on_loopback=on_loopback), *needed])


def should_stop(passed: Sequence[bool | None]) -> bool:
    """Say whether a curve ends here: its last two batches failed (None, inconclusive, is no failure)."""
    last = passed[-FAILURES_THAT_STOP:]
    return len(last) == FAILURES_THAT_STOP and all(outcome is False for outcome in last)
