"""Targets: what can provide the URL of a server to measure, a folder for each kind.

May import core, config, client, results and `hub.access`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_openenv_scale.core.endpoint import Target
from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.own_process import import_user_module
from pytest_openenv_scale.core.parsing import suggestion
from pytest_openenv_scale.core.target_spec import TargetSpec

from .common.options import TargetContext, is_path

if TYPE_CHECKING:
    from .common.base import StartedTarget
    from .common.leftovers import Leftover

__all__ = [
    "KINDS",
    "TargetContext",
    "TargetKind",
    "capability",
    "find_target",
    "open_in_context",
    "open_target",
    "serves_environment",
    "target_names",
]


@dataclass(frozen=True)
class TargetKind:
    """One kind of target, in modules that are imported when it is used.

    `target` names the class that starts and describes it, `finder` what looks for leftovers of runs that were killed.
    A `remote` one is not on this machine or in its cluster: it is what a proxy leads to.
    """

    target: str
    finder: str | None = None
    remote: bool = False

    def open(self, spec: TargetSpec, context: TargetContext) -> StartedTarget:
        """Return the target; nothing is started or reached before it is entered."""
        network = context.network if self.remote else replace(context.network, proxy=None)
        return _load(self.target)(spec, replace(context, network=network))

    def leftovers(self) -> Iterable[Leftover]:
        """Return what killed runs left behind, each with what removes it.

        Raises:
            TargetError: it cannot look, for want of an engine for example.
        """
        return _load(self.finder)() if self.finder else ()


def _load(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(import_module(f"{__name__}.{module}"), attribute)


KINDS: Mapping[str, TargetKind] = {
    "docker": TargetKind("docker.target:DockerTarget", "docker.target:leftover_containers"),
    "envoy": TargetKind("envoy.target:EnvoyTarget"),
    "local": TargetKind("local.target:LocalTarget"),
    "provider": TargetKind("provider.target:ProviderTarget", remote=True),
    "spaces": TargetKind("spaces.target:SpacesTarget", "spaces.target:leftover_spaces", remote=True),
    "slurm": TargetKind("slurm.target:SlurmTarget", "slurm.job:leftover_jobs"),
    "url": TargetKind("url:UrlTarget", remote=True),
}


def serves_environment(spec: TargetSpec) -> bool:
    """Say whether what a target serves depends on the folder of the environment, as nothing else is named."""
    keys = {key for key, _ in spec.options} | {(spec.argument or "").partition("=")[0]}
    match spec.name:
        case "url":
            return False
        case "docker":
            return spec.argument is None
        case "spaces":
            return "temporary" in keys and "folder" not in keys
        case "envoy":
            return keys.isdisjoint(("urls", "image"))
        case "local":
            return not is_path(spec.argument or "")
        case _:
            return True


def target_names() -> tuple[str, ...]:
    """Return the names a target specification may begin with, besides a URL."""
    return tuple(name for name in KINDS if name != "url")


def open_target(
    spec: TargetSpec,
    *,
    root: Path,
    largest_batch: int = 1,
    headers: Mapping[str, str] | None = None,
    log_path: Path | None = None,
    modes: tuple[str, ...] = ("ws",),
    run_id: str | None = None,
    show_progress: Callable[[str], None] | None = None,
    timeout_s: float | None = None,
) -> StartedTarget:
    """Return the target `spec` describes; nothing is started or reached before it is entered.

    `largest_batch` is the most sessions any cell asks for; `root` is where `openenv.yaml` is looked for;
    a started server writes to `log_path`, or to an unnamed temporary file. Containers and jobs are
    labelled with `run_id`. `show_progress` gets the lines to show while it opens. `timeout_s` is what each
    phase of a session gets.

    Raises:
        GrammarError: there is no such target, it has no such key, or a value cannot be used.
    """
    context = TargetContext(root, largest_batch, headers or {}, log_path, modes, run_id, timeout_s=timeout_s)
    return open_in_context(spec, context if show_progress is None else replace(context, show_progress=show_progress))


def open_in_context(spec: TargetSpec, context: TargetContext) -> StartedTarget:
    """Return the target `spec` describes for the run of `context`; see `open_target`."""
    kind = KINDS.get(spec.name)
    if kind is None:
        available = ", ".join([*target_names(), "http(s)://…"])
        similar = suggestion(spec.name, target_names())
        hint = similar if "did you mean" in similar else ""
        raise GrammarError(f"there is no target {spec.name!r}{hint} (targets: {available})")
    return kind.open(spec, context)


_HOOK = "pytest_openenv_scale_target"
"""What modules have that know targets of others, for commands that run without pytest."""


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
