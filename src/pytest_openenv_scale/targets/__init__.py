"""Targets: what can provide the URL of a server to measure, a folder for each kind.

May import core, config, client, results and `hub.access`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from pytest_openenv_scale.core.endpoint import Target
from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.parsing import suggestion
from pytest_openenv_scale.core.target_spec import TargetSpec

from .common.options import TargetContext

__all__ = ["TargetContext", "open_target", "target_names"]

Factory = Callable[[TargetSpec, TargetContext], Target]


def _docker(spec: TargetSpec, context: TargetContext) -> Target:
    from .docker.target import DockerTarget

    return DockerTarget(spec, context)


def _envoy(spec: TargetSpec, context: TargetContext) -> Target:
    from .envoy.target import EnvoyTarget

    return EnvoyTarget(spec, context)


def _local(spec: TargetSpec, context: TargetContext) -> Target:
    from .local.target import LocalTarget

    return LocalTarget(spec, context)


def _provider(spec: TargetSpec, context: TargetContext) -> Target:
    from .provider.target import ProviderTarget

    return ProviderTarget(spec, context)


def _spaces(spec: TargetSpec, context: TargetContext) -> Target:
    from .spaces.target import SpacesTarget

    return SpacesTarget(spec, context)


def _slurm(spec: TargetSpec, context: TargetContext) -> Target:
    from .slurm.target import SlurmTarget

    return SlurmTarget(spec, context)


def _url(spec: TargetSpec, context: TargetContext) -> Target:
    from .url import UrlTarget

    return UrlTarget(spec, context)


_FACTORIES: Mapping[str, Factory] = {
    "docker": _docker,
    "envoy": _envoy,
    "local": _local,
    "provider": _provider,
    "spaces": _spaces,
    "slurm": _slurm,
    "url": _url,
}


def target_names() -> tuple[str, ...]:
    """Return the names a target specification may begin with, besides a URL."""
    return tuple(name for name in _FACTORIES if name != "url")


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
) -> Target:
    """Return the target `spec` describes; nothing is started or reached before it is entered.

    `largest_batch` is the most sessions any cell asks for; `root` is where `openenv.yaml` is looked for;
    a started server writes to `log_path`, or to an unnamed temporary file. Containers and jobs are
    labelled with `run_id`. `show_progress` gets the lines to show while it opens.

    Raises:
        GrammarError: there is no such target, it has no such key, or a value cannot be used.
    """
    factory = _FACTORIES.get(spec.name)
    if factory is None:
        available = ", ".join([*target_names(), "http(s)://…"])
        similar = suggestion(spec.name, target_names())
        hint = similar if "did you mean" in similar else ""
        raise GrammarError(f"there is no target {spec.name!r}{hint} (targets: {available})")
    context = TargetContext(root, largest_batch, headers or {}, log_path, modes, run_id)
    return factory(spec, context if show_progress is None else replace(context, show_progress=show_progress))
