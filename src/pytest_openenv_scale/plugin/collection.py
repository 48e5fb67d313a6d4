"""What the marks on a test ask for together, and whether that can be measured."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import pytest

from .core.grammar import format_number, nearest
from .core.settings import ScalingMark
from .core.slo import Limit, Slo
from .marks import SIGNATURES, MarkError, make_scaling, make_slo


def scaling_mark(item: pytest.Item) -> ScalingMark | None:
    """Return the merged `scaling` marks of a test, the nearest one per argument; None without such a mark.

    Function outranks class, class outranks module, and a mark of a parameter outranks them all. Paths are
    relative to the test's file.

    Raises:
        MarkError: a mark is wrong, or two marks in one place write the same argument.
    """
    found: dict[str, Any] = {}
    marked = False
    for level in _levels(item, "scaling"):
        here: dict[str, Any] = {}
        for arguments in level:
            marked = True
            for name, value in make_scaling(arguments, item.path.parent).written().items():
                if name in here:
                    raise MarkError(f"mark scaling: {name} is written twice in one place; write it once")
                here[name] = value
        found = {**here, **found}
    return ScalingMark(**found) if marked else None


def slo_marks(item: pytest.Item) -> tuple[Slo, ...]:
    """Return the limits of a test's `slo` marks, nearest first.

    In one place (say, on the function) a mark that selects by `wait` and `mode` comes before a general one.

    Raises:
        MarkError: a mark is wrong, or two marks in one place set the same limit on the same curves.
    """
    found: list[Slo] = []
    for level in _levels(item, "slo"):
        here = [make_slo(arguments) for arguments in level]
        seen: set[tuple[str, float | None, str | None]] = set()
        for limits in here:
            for limit in limits.limits:
                key = limit.name, limits.wait, limits.mode
                if key in seen:
                    raise MarkError(f"mark slo: {limit.name} is set twice in one place; write it once")
                seen.add(key)
        found += sorted(here, key=lambda limits: (limits.wait is None) + (limits.mode is None))
    return tuple(found)


def check_selects(
    slos: Iterable[Slo],
    modes: Sequence[str],
    waits: Sequence[float | None],
    batches: Sequence[int] = (),
) -> None:
    """Refuse limits that select no curve, or that no curve they select can be measured by.

    `waits` holds None alone where the environment cannot be asked to wait. `batches` are those asked for,
    besides what `max_batch` limits add; without them `hosts` is not checked.

    Raises:
        MarkError: naming the limit and what there is instead.
    """
    every = tuple(slos)
    largest = max((*batches, *(size for limits in every for size in _max_batches(limits))), default=0)
    for limits in every:
        selected = [(mode, wait) for mode in modes for wait in waits if limits.selects(wait, mode)]
        if not selected:
            raise MarkError(_selects_nothing(limits, modes, waits))
        for limit in limits.limits:
            needs_wait = limit.name == "latency_factor" or limit.kind.phase == "overhead"
            if needs_wait and all(wait is None for _, wait in selected):
                raise MarkError(
                    f"{_place(limit)}: {limit.name} cannot be measured, because the environment cannot be "
                    "asked to wait; write a limit on total or step instead"
                )
            if limit.name == "hosts" and batches and limit.allowed > largest:
                raise MarkError(
                    f"{_place(limit)}: {limit.text} cannot be measured with at most {largest} sessions; "
                    f"write a batch of at least {limit.allowed:.0f}"
                )


def _max_batches(limits: Slo) -> tuple[int, ...]:
    limit = limits.limit("max_batch")
    return () if limit is None else (int(limit.allowed),)


def _place(limit: Limit) -> str:
    return {"command line": "--openenv-slo", "ini": "openenv_slo"}.get(limit.source, "mark slo")


def _selects_nothing(limits: Slo, modes: Sequence[str], waits: Sequence[float | None]) -> str:
    if limits.mode is not None and limits.mode not in modes:
        return (
            f'mark slo(mode="{limits.mode}") selects no curve; the modes measured are {", ".join(modes)} '
            "(set modes= in the mark scaling)"
        )
    asked = format_number(limits.wait or 0.0)
    if all(wait is None for wait in waits):
        return f"mark slo(wait={asked}) selects no curve: the environment cannot be asked to wait; leave wait= out"
    there = ", ".join(format_number(wait) for wait in waits if wait is not None)
    return f"mark slo(wait={asked}) selects no curve; the waits are {there} (set waits= in the mark scaling)"


def _levels(item: pytest.Item, name: str) -> Iterator[list[Mapping[str, Any]]]:
    """Yield the arguments of the marks of one place at a time, the nearest place first."""
    for node in reversed(item.listchain()):
        places = _places(node)
        level: dict[int, list[Mapping[str, Any]]] = {}
        added = -1  # a mark that a plugin prepended is nearer than what is written, an appended one farther
        for mark in node.own_markers:
            rank = next((rank for rank, place in enumerate(places) if any(mark is one for one in place)), None)
            added = added if rank is None else len(places)
            if mark.name == name:
                level.setdefault(added if rank is None else rank, []).append(_arguments(mark))
        for rank in sorted(level):
            yield level[rank]


def _places(node: Any) -> list[list[pytest.Mark]]:
    """Return the marks written on a node, place by place: a parameter, then the object, then base classes."""
    parameter = _listed(list(getattr(getattr(node, "callspec", None), "marks", ())))
    written = getattr(node, "obj", None)
    if isinstance(written, type):
        return [parameter, *(_listed(vars(owner).get("pytestmark")) for owner in written.__mro__)]
    return [parameter, _listed(getattr(written, "pytestmark", None))]


def _listed(marks: Any) -> list[pytest.Mark]:
    several = cast("list[Any]", marks) if isinstance(marks, list) else [marks]
    return [getattr(mark, "mark", mark) for mark in several]


def _arguments(mark: pytest.Mark) -> Mapping[str, Any]:
    """Return a mark's arguments by name, after a look at the names.

    Raises:
        MarkError: an argument is positional, or has a name that does not exist.
    """
    known = list(inspect.signature(SIGNATURES[mark.name]).parameters)
    if mark.args:
        example = "batches=…" if mark.name == "scaling" else "max_batch=…"
        raise MarkError(f"mark {mark.name} takes named arguments only; write {mark.name}({example})")
    for name in mark.kwargs:
        if name not in known:
            raise MarkError(f"mark {mark.name} has no argument {name!r}{nearest(name, known)}")
    return mark.kwargs
