"""The target of tests: found by hook or by name, entered for their environment, and given a label of its own."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from pytest_openenv_scale.core.endpoint import Endpoint, Target
from pytest_openenv_scale.core.errors import GrammarError, TargetError
from pytest_openenv_scale.core.target_spec import TargetSpec, parse_target, redact_target

from .invocation import TargetParameter

if TYPE_CHECKING:
    from .invocation import Invocation

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


def target_ids(specs: Sequence[TargetSpec]) -> list[str]:
    """Return what tells targets apart in a test id: their text without secrets, numbered where it repeats."""
    texts = [redact_target(spec) for spec in specs]
    return [
        text if texts.count(text) == 1 else f"{text}#{texts[: index + 1].count(text)}"
        for index, text in enumerate(texts)
    ]


def label_suffix(spec: TargetSpec, specs: Sequence[TargetSpec]) -> str:
    """Return what a target's label needs to stay unique among all targets of the run; mostly nothing.

    `slurm:nodes=2` and `slurm:nodes=4` share a label and get "-nodes2" and "-nodes4".
    """
    rivals = [other for other in specs if _label_key(other) == _label_key(spec)]
    if len(rivals) < 2:
        return ""
    suffixes = [_label_difference(rival, rivals) for rival in rivals]
    own = suffixes[rivals.index(spec)]
    if suffixes.count(own) == 1:
        return own
    return f"{own}-{rivals.index(spec) + 1}"


def _label_key(spec: TargetSpec) -> tuple[str | None, ...]:
    """Return what decides a target's label; targets of one family collide."""
    hosts = ",".join(urlsplit(url).netloc.rpartition("@")[2] for url in spec.urls)
    return (spec.name, hosts, spec.option("server"), spec.option("label"), _node_kind(spec))


def _node_kind(spec: TargetSpec) -> str | None:
    """Tell slurm-single from slurm-multi, which are two labels; the nodes of an allocation are not known yet."""
    nodes = spec.option("nodes") or (spec.argument or "").removeprefix("nodes=") or "1"
    return str(nodes.strip() != "1") if spec.name == "slurm" else None


def _label_difference(spec: TargetSpec, rivals: Sequence[TargetSpec]) -> str:
    own = _public_options(spec)
    others = [_public_options(rival) for rival in rivals]
    differing = [key for key in own if any(other.get(key) != own[key] for other in others)]
    parts = [own[key] if key == "" else f"{key}{own[key]}" for key in differing]
    return "".join(f"-{clean}" for part in parts if (clean := _UNSAFE.sub("-", part.replace("=", "")).strip("-.")))


def _public_options(spec: TargetSpec) -> dict[str, str]:
    """Return the argument (under "") and the options of a target, without secrets."""
    public = parse_target(redact_target(spec))
    argument = urlsplit(public.urls[0]).path if public.urls else public.argument
    return {"": argument or "", **dict(public.options)}


def parametrize_target(metafunc: pytest.Metafunc, invocation: Invocation) -> None:
    """Run a test once per target, and each on its own environment; ids name a target where there are several."""
    targets, environments = invocation.settings.targets, invocation.environments
    path = metafunc.definition.path
    parameters = environments.parameters(targets, path)
    if len(targets) == 1 and parameters[0].environment in (None, environments.folder(None)):
        return
    metafunc.parametrize(
        "openenv_target", parameters, ids=_parameter_ids(invocation, parameters), indirect=True, scope="session"
    )


def _parameter_ids(invocation: Invocation, parameters: Sequence[TargetParameter]) -> Sequence[Any]:
    targets = invocation.settings.targets
    if len(targets) > 1:
        return target_ids(targets)
    hidden = getattr(pytest, "HIDDEN_PARAM", None)  # Since pytest 8.4.
    return [hidden or str(parameters[0].environment)]


def target_of(invocation: Invocation, item: pytest.Item) -> tuple[TargetSpec, str | None]:
    """Return the target of a test, and the part of the test's id that names it, or None."""
    callspec: Any = getattr(item, "callspec", None)
    parameter: TargetParameter | None = callspec.params.get("openenv_target") if callspec else None
    targets = invocation.settings.targets
    if not isinstance(parameter, TargetParameter):
        return targets[0], None
    part = _parameter_ids(invocation, [parameter] * len(targets))[parameter.index]
    return targets[parameter.index], part if isinstance(part, str) else None


def default_parameter(invocation: Invocation) -> TargetParameter:
    """Return the parameter of a test that is not parametrized; fail where it would have to be."""
    targets, environments = invocation.settings.targets, invocation.environments
    if len(targets) > 1:
        pytest.fail("there are several targets: take openenv_target or scaling as an argument", pytrace=False)
    test_file = invocation.current_file
    (parameter,) = environments.parameters(targets, test_file) if test_file else [TargetParameter()]
    if parameter.environment not in (None, environments.folder(None)):
        pytest.fail(
            f"the environment of {test_file} is {parameter.environment}, which is not that of the whole run: "
            "take openenv_target or scaling as an argument",
            pytrace=False,
        )
    return parameter


@contextmanager
def running_target(invocation: Invocation, parameter: TargetParameter) -> Generator[Endpoint]:
    """Start or attach to a target sized to the selected tests, and stop it after the block; fail where none starts."""
    spec = invocation.settings.targets[parameter.index]
    entered = _enter_target(invocation, spec, parameter.environment)
    if isinstance(entered, str):
        pytest.fail(entered, pytrace=False)
    target, endpoint = entered
    try:
        suffix = label_suffix(spec, invocation.settings.targets)
        yield replace(endpoint, label=f"{endpoint.label}{suffix}") if suffix else endpoint
    finally:
        _stop_target(invocation, target)


def _enter_target(invocation: Invocation, spec: TargetSpec, environment: Path | None) -> tuple[Target, Endpoint] | str:
    """Return an entered target with its endpoint, or the message of what kept it from starting."""
    try:
        target = _find_target(invocation, spec, environment)
        with invocation.progress.activity(redact_target(spec), "waiting for it" if spec.urls else "starting"):
            return target, target.__enter__()
    except (TargetError, GrammarError) as error:
        return str(error)


def _stop_target(invocation: Invocation, target: Target) -> None:
    """Stop a target; what it could not stop is reported at the end of the run and fails no test."""
    try:
        target.__exit__(None, None, None)
    except TargetError as error:
        invocation.note_problem(str(error))


def _find_target(invocation: Invocation, spec: TargetSpec, environment: Path | None) -> Target:
    from pytest_openenv_scale.config.workload import Workload, WorkloadError
    from pytest_openenv_scale.targets import TargetContext, open_in_context

    from .settings import ask_hooks

    settings, selection, progress = invocation.settings, invocation.selection, invocation.progress
    try:
        reset = Workload(reset=selection.reset or settings.reset or {}).reset_data(0, settings.seed)
    except WorkloadError as error:
        raise TargetError(f"reset data: {error}") from None
    config, environments = invocation.config, invocation.environments
    context = TargetContext(
        environment or config.rootpath,
        selection.largest_batch,
        settings.headers,
        modes=selection.modes,
        run_id=invocation.run_location.run_id,
        show_progress=progress.line,
        show_status=progress.detail,
        timeout_s=selection.timeout or settings.timeout,
        reset=reset,
        rootpath=config.rootpath,
        pythonpath=tuple(config.getini("pythonpath")),
        network=settings.network,
        searched=() if environment else environments.starts(invocation.current_file),
    )
    return ask_hooks(config, settings, spec, context) or open_in_context(spec, context)
