"""The marks `scaling` and `slo`: typed signatures that check themselves, and how marks combine on a test."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import pytest

from .core.grammar import GrammarError, format_number, nearest, parse_mode, parse_seconds
from .core.settings import WORKLOAD_PARSERS, ScalingMark
from .core.slo import Limit, Slo, make_limit

__all__ = ["MarkError", "ScalingMark", "Slo", "check_selects", "marker_lines", "scaling", "scaling_mark"]
__all__ += ["slo", "slo_marks"]

Number = int | float | str

SUITE_MARKS: Mapping[str, str] = MappingProxyType(
    {
        "isolation": "sessions never see each other's state",
        "capacity": "past its limit a server says so, and slots come back",
        "responsiveness": "a step does not stop the other sessions",
        "churn": "sessions that come and go, well or badly, leave nothing behind",
        "protocol": "what no client should send gets an error or a documented close",
        "determinism": "the same seed and actions give the same observations, alone and among others",
        "endurance": "nothing drifts while sessions go on (--openenv-soak)",
        "fairness": "no session starves",
    }
)
"""The marks of the ready-made suite besides `scaling`, one per subject, with what its tests show."""


class MarkError(ValueError):
    """A mark that is wrong: one line that names the mark, what was wrong and what to write instead."""


def scaling(
    *,
    batches: int | str | Iterable[int | str] | None = None,
    waits: Number | Iterable[Number] | None = None,
    reps: int | str | None = None,
    modes: str | Iterable[str] | None = None,
    steps: int | str | None = None,
    arrival: str | None = None,
    timeout: Number | None = None,
    action: Mapping[str, Any] | str | None = None,
    reset: Mapping[str, Any] | str | None = None,
) -> ScalingMark:
    """Measure how many sessions the target holds at once, with the fixture of the same name.

    `waits` and `timeout` are seconds or text like "500ms"; `batches` text like "1,8,32..512" or numbers;
    `action` and `reset` JSON, a mapping, and for `action` also "@file.jsonl" or "module:function". What is
    left out comes from the options.

    Raises:
        MarkError: a value is wrong.
    """
    return _scaling(dict(locals()), Path())


def slo(
    *,
    max_batch: int | str | None = None,
    success: float | str | None = None,
    total_p50: Number | None = None,
    total_p90: Number | None = None,
    total_p95: Number | None = None,
    total_p99: Number | None = None,
    connect_p50: Number | None = None,
    connect_p90: Number | None = None,
    connect_p95: Number | None = None,
    connect_p99: Number | None = None,
    reset_p50: Number | None = None,
    reset_p90: Number | None = None,
    reset_p95: Number | None = None,
    reset_p99: Number | None = None,
    step_p50: Number | None = None,
    step_p90: Number | None = None,
    step_p95: Number | None = None,
    step_p99: Number | None = None,
    overhead_p50: Number | None = None,
    overhead_p90: Number | None = None,
    overhead_p95: Number | None = None,
    overhead_p99: Number | None = None,
    latency_factor: Number | None = None,
    rps: Number | None = None,
    batch_per_core: Number | None = None,
    hosts: int | str | None = None,
    wait: Number | None = None,
    mode: str | None = None,
) -> Slo:
    """Limit what a test marked scaling must meet, on every curve or on those of one wait= or mode=.

    Latencies are seconds or text like "250ms", `success` is a fraction or text like "95%", `rps` sessions
    per second. In mode `http` the limits on `connect` apply to the TCP and TLS connection.

    Raises:
        MarkError: a value is wrong, or there is no limit.
    """
    return _slo(dict(locals()))


_SIGNATURES: Mapping[str, Callable[..., object]] = {"scaling": scaling, "slo": slo}


def marker_lines() -> tuple[str, ...]:
    """Return the lines that `pytest --markers` shows: full signature and one sentence each."""
    lines: list[str] = []
    for name, function in _SIGNATURES.items():
        sentence = inspect.cleandoc(function.__doc__ or "").partition("\n")[0]
        arguments = ", ".join(inspect.signature(function).parameters)
        lines.append(f"{name}({arguments}): {sentence[:1].lower()}{sentence[1:]}")
    lines += [f"{name}: {sentence}." for name, sentence in SUITE_MARKS.items()]
    return tuple(lines)


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
            for name, value in _scaling(arguments, item.path.parent).written().items():
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
        here = [_slo(arguments) for arguments in level]
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


def _scaling(arguments: Mapping[str, Any], directory: Path) -> ScalingMark:
    try:
        return ScalingMark(
            **{name: WORKLOAD_PARSERS[name](value, directory) for name, value in arguments.items() if value is not None}
        )
    except GrammarError as error:
        raise MarkError(f"mark scaling: {error}") from None


def _slo(arguments: Mapping[str, Any]) -> Slo:
    written = {name: value for name, value in arguments.items() if value is not None}
    try:
        wait = parse_seconds(written.pop("wait"), what="wait") if "wait" in written else None
        mode = parse_mode(written.pop("mode")) if "mode" in written else None
        limits = tuple(make_limit(name, value) for name, value in written.items())
    except GrammarError as error:
        raise MarkError(f"mark slo: {error}") from None
    if not limits:
        raise MarkError("mark slo: it sets no limit; write for example slo(max_batch=64)")
    return Slo(limits, wait, mode)


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
    known = list(inspect.signature(_SIGNATURES[mark.name]).parameters)
    if mark.args:
        example = "batches=…" if mark.name == "scaling" else "max_batch=…"
        raise MarkError(f"mark {mark.name} takes named arguments only; write {mark.name}({example})")
    for name in mark.kwargs:
        if name not in known:
            raise MarkError(f"mark {mark.name} has no argument {name!r}{nearest(name, known)}")
    return mark.kwargs
