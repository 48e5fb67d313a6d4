"""The target of a session of tests: found by hook or by name, entered, and given its label."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from .core.endpoint import Endpoint, Target, TargetError
from .core.grammar import GrammarError, TargetSpec
from .labels import label_suffix

if TYPE_CHECKING:
    from .invocation import Invocation


@contextmanager
def opened(invocation: Invocation, spec: TargetSpec) -> Generator[Endpoint]:
    """Start or attach to a target, sized to the selected tests; what cannot is one clean failure."""
    entered = _enter(invocation, spec)
    if isinstance(entered, str):
        pytest.fail(entered, pytrace=False)
    target, endpoint = entered
    try:
        suffix = label_suffix(spec, invocation.settings.targets)
        yield replace(endpoint, label=f"{endpoint.label}{suffix}") if suffix else endpoint
    finally:
        _leave(invocation, target)


def _enter(invocation: Invocation, spec: TargetSpec) -> tuple[Target, Endpoint] | str:
    """Return an entered target with its endpoint, or the message of what kept it from starting."""
    try:
        target = _find(invocation, spec)
        return target, target.__enter__()
    except (TargetError, GrammarError) as error:
        return str(error)


def _leave(invocation: Invocation, target: Target) -> None:
    """Stop a target; what it could not stop is told at the end, and takes nothing from what was measured."""
    try:
        target.__exit__(None, None, None)
    except TargetError as error:
        invocation.note_problem(str(error))


def _find(invocation: Invocation, spec: TargetSpec) -> Target:
    from .targets import open_target

    settings, selection = invocation.settings, invocation.selection
    hook: Any = invocation.config.hook
    found: Target | None = hook.pytest_openenv_scale_target(
        spec=spec, settings=settings, largest_batch=selection.largest_batch
    )
    return found or open_target(
        spec,
        root=invocation.config.rootpath,
        largest_batch=selection.largest_batch,
        headers=settings.headers,
        modes=selection.modes,
        run_id=invocation.place.run_id,
        say=invocation.progress.line if invocation.progress is not None else None,
    )
