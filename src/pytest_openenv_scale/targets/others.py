"""Targets of others, for commands that run without pytest: modules that have the hook `pytest_openenv_scale_target`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

from pytest_openenv_scale.core.endpoint import Target
from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.own_process import import_user_module
from pytest_openenv_scale.core.target_spec import TargetSpec

from . import open_in_context
from .common.options import TargetContext

_HOOK = "pytest_openenv_scale_target"


def find_target(spec: TargetSpec, context: TargetContext, modules: Sequence[str]) -> Target:
    """Return the target of the first module whose hook has one for `spec`, else the built-in one.

    Raises:
        GrammarError: a module does not import or has no such hook, or the built-in target refuses `spec`.
    """
    if modules:
        sys.path.insert(0, str(context.root))
    for name in modules:
        target = _ask(name, spec, context)
        if target is not None:
            return target
    return open_in_context(spec, context)


def _ask(module: str, spec: TargetSpec, context: TargetContext) -> Target | None:
    try:
        hook: Callable[..., Target | None] = getattr(import_user_module(module), _HOOK)
    except (ImportError, AttributeError) as error:
        raise GrammarError(f"-p {module}: {error}; name a module that has the hook {_HOOK}") from None
    arguments = {"spec": spec, "largest_batch": context.largest_batch, "context": context}
    try:
        return hook(**{name: arguments[name] for name in inspect.signature(hook).parameters})
    except KeyError as error:
        raise GrammarError(f"-p {module}: {_HOOK} takes {error}, which only a test run has") from None


def capability(target: Target, name: str, missing: str) -> Callable[..., Any]:
    """Return the method `describe` or `collect` of a target, which others may leave out.

    Raises:
        GrammarError: it has none; the line ends with `missing`.
    """
    method = getattr(target, name, None)
    if not callable(method):
        raise GrammarError(f"target {target.spec} {missing}")
    return method
