"""The marks: `scaling` and `slo` as typed signatures that check themselves, and the lines `pytest --markers` shows.

Every pytest run pays for this module: what a mark means is imported where one is read.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import pytest

if TYPE_CHECKING:
    from pytest_openenv_scale.config.limits import Slo
    from pytest_openenv_scale.config.settings import ScalingMark, Settings

DECLARATION: pytest.StashKey[Declaration] = pytest.StashKey()
"""In a test's stash: what its marks ask for."""

Number = int | float | str


class MarkError(ValueError):
    """A mark that is wrong: one line that names the mark, what was wrong and what to write instead."""


class ScalingArguments(TypedDict, total=False):
    """The arguments of the mark `scaling`, by name."""

    batches: int | str | Iterable[int | str] | None
    waits: Number | Iterable[Number] | None
    reps: int | str | None
    modes: str | Iterable[str] | None
    steps: int | str | None
    think: Number | None
    arrival: str | None
    ramp: Number | None
    for_: Number | None
    timeout: Number | None
    action: Mapping[str, Any] | str | None
    reset: Mapping[str, Any] | str | None
    search: bool | str | None
    precision: Number | None


def scaling(**arguments: Unpack[ScalingArguments]) -> ScalingMark:
    """Measure how many sessions a server holds at once; batches are sessions open at once, waits the time of a step.

    `waits`, `timeout`, `ramp` and `for_` are seconds or text like "500ms", and so is `think`, or a distribution like
    "exponential=2s"; `batches` text like "1,8,32..512" or numbers; `steps` a number or text like "until_done=200";
    `action` and `reset` JSON, a mapping, "@file.jsonl" or "module:function"; `search` True or text like "16..4096",
    `precision` a fraction or text like "5%", 0 for exact. What is left out comes from the options.

    Raises:
        MarkError: a value is wrong, or there is no argument of that name.
    """
    return parse_scaling_mark(arguments, Path())


class SloArguments(TypedDict, total=False):
    """The arguments of the mark `slo`, by name: the limits, and the curves they are for."""

    max_batch: int | str | None
    success: float | str | None
    total_p50: Number | None
    total_p90: Number | None
    total_p95: Number | None
    total_p99: Number | None
    connect_p50: Number | None
    connect_p90: Number | None
    connect_p95: Number | None
    connect_p99: Number | None
    reset_p50: Number | None
    reset_p90: Number | None
    reset_p95: Number | None
    reset_p99: Number | None
    step_p50: Number | None
    step_p90: Number | None
    step_p95: Number | None
    step_p99: Number | None
    overhead_p50: Number | None
    overhead_p90: Number | None
    overhead_p95: Number | None
    overhead_p99: Number | None
    latency_factor: Number | None
    sessions_per_second: Number | None
    rps: Number | None
    batch_per_core: Number | None
    hosts: int | str | None
    open: int | str | None
    rss: Number | None
    memory_per_session: Number | None
    threads_per_session: Number | None
    descriptors_per_session: Number | None
    cpu_per_step: Number | None
    every_cell: bool | None
    wait: Number | None
    mode: str | None


def slo(**arguments: Unpack[SloArguments]) -> Slo:
    """Set the limits that a test marked scaling must meet, for all of its waits and modes or for one wait= or mode=.

    Latencies are seconds or text with its unit like "250ms", `success` is a fraction or text like "95%", `rss` and
    `memory_per_session` are bytes or text like "2MiB"; `rps` is the same as `sessions_per_second`. In mode `http` the
    limits on `connect` apply to the TCP and TLS connection. With `every_cell=False` the limits define max batch, and a
    test fails only where nothing passes.

    Raises:
        MarkError: a value is wrong, there is no limit of that name, or there is none at all.
    """
    return parse_slo_mark(arguments)


ARGUMENTS: Mapping[str, Sequence[str]] = MappingProxyType(
    {"scaling": tuple(ScalingArguments.__annotations__), "slo": tuple(SloArguments.__annotations__)}
)
"""The marks that take arguments, and the names of these."""


def marker_lines() -> tuple[str, ...]:
    """Return the lines that `pytest --markers` shows: full signature and one sentence each."""
    lines: list[str] = []
    for mark in (scaling, slo):
        sentence = inspect.cleandoc(mark.__doc__ or "").partition("\n")[0]
        arguments = ", ".join(ARGUMENTS[mark.__name__])
        lines.append(f"{mark.__name__}({arguments}): {sentence[:1].lower()}{sentence[1:]}")
    return tuple(lines)


def parse_scaling_mark(arguments: Mapping[str, Any], directory: Path) -> ScalingMark:
    """Check the arguments of a `scaling` mark; paths are relative to `directory`.

    Raises:
        MarkError: a value is wrong, or there is no argument of that name.
    """
    from pytest_openenv_scale.config.settings import ScalingMark, option_name
    from pytest_openenv_scale.config.values import PARSERS, ValueOrigin
    from pytest_openenv_scale.core.errors import GrammarError

    _check_names("scaling", arguments)
    origin = ValueOrigin("mark", "mark scaling", directory)
    try:
        return ScalingMark(
            **{
                name: PARSERS[option_name(name)](value, origin)
                for name, value in arguments.items()
                if value is not None
            }
        )
    except GrammarError as error:
        raise MarkError(f"mark scaling: {error}") from None
    except Exception as error:
        raise _unreadable("scaling", error) from None


def _unreadable(mark: str, error: Exception) -> MarkError:
    """Return the error of a mark in which something stands that cannot be compared or repeated, such as an array."""
    words = " ".join(f"{type(error).__name__}: {error}".split())
    return MarkError(f"mark {mark}: a value of it cannot be read ({words}); write plain numbers, text or lists")


def _check_names(mark: str, arguments: Iterable[str]) -> None:
    from pytest_openenv_scale.core.parsing import suggestion

    for name in arguments:
        if name not in ARGUMENTS[mark]:
            raise MarkError(f"mark {mark} has no argument {name!r}{suggestion(name, ARGUMENTS[mark])}")


def parse_slo_mark(arguments: Mapping[str, Any]) -> Slo:
    """Check the arguments of an `slo` mark.

    Raises:
        MarkError: a value is wrong, there is no argument of that name, or no limit.
    """
    from pytest_openenv_scale.config.limits import Slo, make_limit
    from pytest_openenv_scale.core.errors import GrammarError
    from pytest_openenv_scale.core.parsing import parse_mode, parse_seconds, short_repr

    _check_names("slo", arguments)
    arguments_given = {name: value for name, value in arguments.items() if value is not None}
    try:
        wait = parse_seconds(arguments_given.pop("wait"), what="wait") if "wait" in arguments_given else None
        mode = parse_mode(arguments_given.pop("mode")) if "mode" in arguments_given else None
        every_cell = arguments_given.pop("every_cell", None)
        if every_cell not in (None, True, False):
            raise GrammarError(f"every_cell must be True or False, got {short_repr(every_cell)}")
        limits = tuple(make_limit(name, value) for name, value in arguments_given.items())
    except GrammarError as error:
        raise MarkError(f"mark slo: {error}") from None
    except Exception as error:
        raise _unreadable("slo", error) from None
    if len({limit.name for limit in limits}) < len(limits):
        raise MarkError("mark slo: rps and sessions_per_second are the same limit; write one of them")
    if not limits and every_cell is None:
        raise MarkError("mark slo: it sets no limit; write for example slo(max_batch=64)")
    return Slo(limits, wait, mode, every_cell)


@dataclass(frozen=True, slots=True)
class Declaration:
    """What one test asks for: its settings, its limits, nearest first, and the most sessions any of its cells opens.

    `problem` is one line where that cannot be done. It has so many `curves`.
    """

    settings: Settings
    slos: tuple[Slo, ...] = ()
    largest_batch: int = 0
    problem: str | None = None
    curves: int = 0
