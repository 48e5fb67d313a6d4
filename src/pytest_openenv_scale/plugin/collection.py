"""What a test measures, by its marks and fixtures: mistakes in them, its name in the run, the command to rerun it."""

from __future__ import annotations

import inspect
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pytest

from pytest_openenv_scale.config.arriving import with_whole_arrival
from pytest_openenv_scale.config.limits import Limit, Slo
from pytest_openenv_scale.config.plan import largest_batch, largest_searched
from pytest_openenv_scale.config.run_command import RUN, run_options
from pytest_openenv_scale.config.settings import ScalingMark, Settings, rerun_options
from pytest_openenv_scale.config.workload import ActionSource
from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.parsing import Arrival, format_number
from pytest_openenv_scale.core.system import is_installed, is_loopback
from pytest_openenv_scale.core.target_spec import TargetSpec

from .marks import DECLARATION, Declaration, MarkError, parse_scaling_mark, parse_slo_mark


def scaling_mark(item: pytest.Item) -> ScalingMark | None:
    """Return the merged `scaling` marks of a test, the nearest one per argument; None without such a mark.

    Function outranks class, class outranks module, and a mark of a parameter outranks them all. Paths are
    relative to the test's file.

    Raises:
        MarkError: a mark is wrong, or two marks in one place write the same argument.
    """
    merged: dict[str, Any] = {}
    marked = False
    for level in _marks_by_level(item, "scaling"):
        of_level: dict[str, Any] = {}
        for arguments in level:
            marked = True
            for name, value in parse_scaling_mark(arguments, item.path.parent).written_arguments().items():
                if name in of_level:
                    raise MarkError(f"mark scaling: {name} is written twice in one place; write it once")
                of_level[name] = value
        merged = {**of_level, **merged}
    return ScalingMark(**merged) if marked else None


def slo_marks(item: pytest.Item) -> tuple[Slo, ...]:
    """Return the limits of a test's `slo` marks, nearest first.

    In one place (say, on the function) a mark that selects by `wait` and `mode` comes before a general one.

    Raises:
        MarkError: a mark is wrong, or two marks in one place set the same limit on the same curves.
    """
    slos: list[Slo] = []
    for level in _marks_by_level(item, "slo"):
        of_level = [parse_slo_mark(arguments) for arguments in level]
        keys: set[tuple[str, float | None, str | None]] = set()
        for limits in of_level:
            for limit in limits.limits:
                key = limit.name, limits.wait, limits.mode
                if key in keys:
                    raise MarkError(f"mark slo: {limit.name} is set twice in one place; write it once")
                keys.add(key)
        slos += sorted(of_level, key=lambda limits: (limits.wait is None) + (limits.mode is None))
    return tuple(slos)


def check_slos_apply(
    slos: Iterable[Slo],
    modes: Sequence[str],
    waits: Sequence[float | None],
    batches: Sequence[int] = (),
    arrival: Arrival | None = None,
) -> None:
    """Refuse limits that select no curve, or that no curve they select can be measured by.

    `waits` holds None alone where the environment cannot be asked to wait. `batches` are those asked for,
    besides what `max_batch` limits add; without them limits that need a batch as large are not checked, and without an
    `arrival` not those that need a steady state.

    Raises:
        MarkError: naming the limit and what there is instead.
    """
    all_slos = tuple(slos)
    largest = largest_batch(batches, all_slos) if batches else None
    for limits in all_slos:
        selected = [(mode, wait) for mode in modes for wait in waits if limits.selects(wait, mode)]
        if not selected:
            raise MarkError(_selects_nothing_message(limits, modes, waits))
        for limit in limits.limits:
            if limit.kind.needs_wait and all(wait is None for _, wait in selected):
                raise MarkError(
                    f"{_limit_origin(limit)}: {limit.name} cannot be measured, because the environment cannot be "
                    "asked to wait; write a limit on total or step instead"
                )
            if limit.kind.family == "open" and arrival is not None and arrival.kind != "steady":
                raise MarkError(
                    f"{_limit_origin(limit)}: {limit.text} cannot be measured with arrival {arrival}, as sessions end "
                    'and no others follow; write --openenv-arrival steady=60s, or scaling(arrival="steady=60s")'
                )
            if limit.name == "max_batch" and arrival is not None and arrival.rate and arrival.seconds:
                _check_arriving_batch(limit, batches, arrival)
            if limit.kind.needs_batch and largest is not None and limit.allowed > largest:
                raise MarkError(
                    f"{_limit_origin(limit)}: {limit.text} cannot be measured with at most {largest} sessions; "
                    f"write a batch of at least {limit.allowed:.0f}"
                )


def _check_arriving_batch(limit: Limit, batches: Sequence[int], arrival: Arrival) -> None:
    """Refuse a limit on another batch than the sessions that arrive at a rate for a time."""
    if limit.allowed not in batches:
        raise MarkError(
            f"{_limit_origin(limit)}: {limit.text} cannot be asked where {batches[0]:,} sessions arrive ({arrival});"
            " write a limit on success or on a latency"
        )


def _limit_origin(limit: Limit) -> str:
    return {"command line": "--openenv-slo", "ini": "openenv_slo"}.get(limit.source, "mark slo")


def _selects_nothing_message(limits: Slo, modes: Sequence[str], waits: Sequence[float | None]) -> str:
    if limits.mode is not None and limits.mode not in modes:
        return (
            f'mark slo(mode="{limits.mode}") selects no curve; the modes measured are {", ".join(modes)} '
            "(set modes= in the mark scaling)"
        )
    wait_text = format_number(limits.wait or 0.0)
    if all(wait is None for wait in waits):
        return f"mark slo(wait={wait_text}) selects no curve: the environment cannot be asked to wait; leave wait= out"
    waits_text = ", ".join(format_number(wait) for wait in waits if wait is not None)
    return f"mark slo(wait={wait_text}) selects no curve; the waits are {waits_text} (set waits= in the mark scaling)"


def _marks_by_level(item: pytest.Item, name: str) -> Iterator[list[Mapping[str, Any]]]:
    """Yield the arguments of the marks of one place at a time, the nearest place first."""
    for node in reversed(item.listchain()):
        locations = _mark_locations(node)
        level: dict[int, list[Mapping[str, Any]]] = {}
        plugin_rank = -1  # a mark that a plugin prepended is nearer than what is written, an appended one farther
        for mark in node.own_markers:
            rank = next(
                (rank for rank, location in enumerate(locations) if any(mark is written for written in location)), None
            )
            plugin_rank = plugin_rank if rank is None else len(locations)
            if mark.name == name:
                level.setdefault(plugin_rank if rank is None else rank, []).append(_mark_arguments(mark))
        for rank in sorted(level):
            yield level[rank]


def _mark_locations(node: Any) -> list[list[pytest.Mark]]:
    """Return the marks written on a node, place by place: a parameter, then the object, then base classes."""
    parameter = _as_mark_list(list(getattr(getattr(node, "callspec", None), "marks", ())))
    marked = getattr(node, "obj", None)
    if isinstance(marked, type):
        return [parameter, *(_as_mark_list(vars(owner).get("pytestmark")) for owner in marked.__mro__)]
    return [parameter, _as_mark_list(getattr(marked, "pytestmark", None))]


def _as_mark_list(marks: Any) -> list[pytest.Mark]:
    items = cast("list[Any]", marks) if isinstance(marks, list) else [marks]
    return [getattr(mark, "mark", mark) for mark in items]


def _mark_arguments(mark: pytest.Mark) -> Mapping[str, Any]:
    """Return a mark's arguments by name.

    Raises:
        MarkError: an argument is positional.
    """
    if mark.args:
        example = "batches=…" if mark.name == "scaling" else "max_batch=…"
        raise MarkError(f"mark {mark.name} takes named arguments only; write {mark.name}({example})")
    return mark.kwargs


def test_name(item: pytest.Item, target_id: str | None) -> str:
    """Return the node id of a test without the part that names the target, so that runs compare.

    That of a file outside the root directory, named as such, begins with `::`: it gets the file's name, which it has
    where its folder or package is named. So does that of an installed package, wherever its environment lies.
    """
    path, colons, name = item.nodeid.partition("::")
    test = f"{path if path and not is_installed(item.path) else item.path.name}{colons}{name}"
    if target_id is None:
        return test
    alone, last = f"[{target_id}]", f"-{target_id}]"
    return f"{test.removesuffix(last)}]" if test.endswith(last) else test.removesuffix(alone)


def rerun_command(
    item: pytest.Function, test: str, settings: Settings, target: TargetSpec, typed: Sequence[str]
) -> str:
    """Return the command that repeats the sweep of one test on one target, quoted for a shell, no secrets.

    `typed` is the command of this invocation: what `openenv-scale run` measured it measures again.
    """
    options = shlex.split(rerun_options(settings, target=target, mode=",".join(settings.modes), wait=None))
    if settings.sources["waits"] == "command line":
        options += ["--openenv-waits", ",".join(map(format_number, settings.waits))]
    if tuple(typed[: len(RUN)]) == RUN:
        return shlex.join([*RUN, *run_options(options)])
    words = ["pytest", *_test_arguments(item, test)]
    if item.config.option.markexpr:
        words += ["-m", item.config.option.markexpr]
    return shlex.join([*words, *options])


def _test_arguments(item: pytest.Function, test: str) -> list[str]:
    """Return how to name a test from the directory pytest was started in: by its file, or by its module."""
    path, colons, name = test.partition("::")
    file = item.config.rootpath / path
    if item.config.option.pyargs and not file.is_file():
        module: str = cast(Any, item.module).__name__
        return ["--pyargs", f"{module}{colons}{name}"]
    return [f"{os.path.relpath(item.path, item.config.invocation_params.dir)}{colons}{name}"]


FIXTURE = "scaling"

CHECK_FIXTURE = "openenv_check"


@dataclass(frozen=True, slots=True)
class Selection:
    """What the selected tests ask of a target together; `tests` are the node ids of those that measure.

    `timeout` is the longest that any of them gives a phase, in seconds; `reset` the first reset data that one of them
    sends.
    """

    largest_batch: int = 1
    modes: tuple[str, ...] = ("ws",)
    tests: tuple[str, ...] = ()
    timeout: float | None = None
    reset: Mapping[str, Any] | ActionSource | None = None
    curves: int = 0


def read_declaration(item: pytest.Item, settings: Settings) -> Declaration | None:
    """Read the marks of a test; None where it has nothing to do with this plugin."""
    try:
        return _make_declaration(item, settings, fixture=FIXTURE in getattr(item, "fixturenames", ()))
    except MarkError as error:
        return Declaration(settings, problem=str(error))


def make_selection(items: Iterable[pytest.Item], settings: Settings) -> Selection:
    """Sum up what the selected tests ask of a target: the cells they declare, and the sessions that checks open."""
    items = list(items)
    checks = [item.nodeid for item in items if CHECK_FIXTURE in getattr(item, "fixturenames", ())]
    declarations = {
        item.nodeid: item.stash[DECLARATION]
        for item in items
        if DECLARATION in item.stash and FIXTURE in getattr(item, "fixturenames", ())
    }
    valid = {test: declared for test, declared in declarations.items() if declared.problem is None}
    if not valid and not checks:
        return Selection()
    largest = [declared.largest_batch for declared in valid.values()]
    modes = [mode for declared in valid.values() for mode in declared.settings.modes]
    timeouts = [declared.settings.timeout for declared in valid.values()] + [settings.timeout] * bool(checks)
    return Selection(
        largest_batch=max([*largest, settings.batches[-1]] if checks else largest),
        modes=tuple(dict.fromkeys([*modes, *settings.modes] if checks else modes)),
        tests=tuple(item.nodeid for item in items if item.nodeid in valid or item.nodeid in checks),
        timeout=max(timeouts),
        curves=sum(declared.curves for declared in valid.values()),
        reset=next((declared.settings.reset for declared in valid.values() if declared.settings.reset), settings.reset),
    )


def _make_declaration(item: pytest.Item, settings: Settings, *, fixture: bool) -> Declaration | None:
    mark, marked_slos = scaling_mark(item), slo_marks(item)
    arguments = [
        name for name, written in (("scaling", mark and mark.written_arguments()), ("slo", marked_slos)) if written
    ]
    if not fixture and not arguments:
        return None
    if not isinstance(item, pytest.Function) or _is_unittest(item):
        raise MarkError(
            f"mark {arguments[0] if arguments else 'scaling'}: it is for test functions and methods of plain "
            "classes; write def test_…(scaling): scaling.run()"
        )
    if not fixture:
        raise MarkError(
            f"mark {arguments[0]} has arguments, but the test does not use the fixture scaling; "
            f"write def {item.originalname}(scaling): scaling.run()"
        )
    if _is_trio(item):
        raise MarkError(needs_asyncio("the fixture scaling of an async test"))
    if mark is None:
        raise MarkError(
            "the fixture scaling needs the mark: write @pytest.mark.scaling above the test "
            "(without it, -m scaling skips this test)"
        )
    try:
        test_settings = with_whole_arrival(settings.with_mark(mark))
    except GrammarError as error:
        raise MarkError(str(error)) from None
    slos = test_settings.slos(marked_slos)
    check_slos_apply(
        slos,
        test_settings.axis("modes"),
        test_settings.axis("waits"),
        () if test_settings.search else test_settings.axis("batches"),
        test_settings.arrival,
    )
    if test_settings.search and test_settings.full_grid:
        raise MarkError("a search measures no grid: leave out --openenv-full-grid, or the search")
    curves = [(mode, wait) for mode in test_settings.modes for wait in test_settings.waits]
    largest = largest_batch(test_settings.batches, slos)
    if test_settings.search:
        on_loopback = not all(map(is_elsewhere, test_settings.targets))
        largest = largest_searched(test_settings.search, slos, curves, on_loopback=on_loopback)
    return Declaration(test_settings, slos, largest, curves=len(curves))


def needs_asyncio(what: str) -> str:
    """Return what to write where a test runs on another event loop than `what` works with."""
    return (
        f"{what} needs asyncio, and this test runs on another event loop, such as trio's; write "
        '@pytest.mark.parametrize("anyio_backend", ["asyncio"]) above a test of anyio, or '
        "def test_…(scaling): scaling.run()"
    )


def _is_trio(item: pytest.Function) -> bool:
    """Say whether anyio's plugin runs this async test on trio."""
    callspec: Any = getattr(item, "callspec", None)
    backend: object = callspec.params.get("anyio_backend") if callspec else None
    if isinstance(backend, tuple) and backend:  # Its name and its options.
        backend = cast("tuple[object, ...]", backend)[0]
    return backend == "trio" and inspect.iscoroutinefunction(item.obj)


def is_elsewhere(spec: TargetSpec) -> bool:
    """Whether a target is surely not on this machine alone, before it is started."""
    return spec.name in ("spaces", "slurm") or (spec.name == "url" and not all(map(is_loopback, spec.urls)))


def _is_unittest(item: pytest.Function) -> bool:
    import unittest

    return item.cls is not None and issubclass(item.cls, unittest.TestCase)
