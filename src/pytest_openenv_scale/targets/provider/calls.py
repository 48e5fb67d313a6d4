"""Which of a provider's calls gets which argument: decided from its signatures, before anything is called."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_openenv_scale.core.parsing import suggestion

_START = ("start_container", "start")
_STOP = ("stop_container", "stop")
_READY = "wait_for_ready"
_ENV = "env_vars"
_BASE_URL = "base_url"
_TIMEOUT = "timeout_s"
_REPLICATES_ITSELF = "DockerSwarmProvider"
"""Takes `replicas` through its **kwargs, so that its signature does not show it."""

_TEXT_ANNOTATIONS = ("str", "Optional[str]", "typing.Optional[str]", "str | None", "<class 'str'>")
_NAMED_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class ProviderError(Exception):
    """A provider cannot be used as the specification says; the text is one line."""


@dataclass(frozen=True)
class ServerRequest:
    """What a specification asks of a provider: `arguments` are its own, as text."""

    arguments: Mapping[str, str] = field(default_factory=dict[str, str])
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    replicas: int | None = None
    workers: int | None = None


@dataclass(frozen=True)
class ProviderCalls:
    """The arguments of each call; `copies` providers are made, behind which `hosts` servers stand (None: unknown)."""

    init: dict[str, Any]
    start: dict[str, Any]
    ready: dict[str, Any]
    start_name: str
    stop_name: str
    copies: int
    hosts: int | None


def plan_calls(provider: type, request: ServerRequest, ready_s: float) -> ProviderCalls:
    """Decide what each call of a provider gets; its readiness may take `ready_s` seconds, or longer by its own default.

    A key goes to the constructor and to start, whichever names it, else to `wait_for_ready`; `init.NAME`,
    `start.NAME` and `ready.NAME` go to one of them, through its `**kwargs` too.

    Raises:
        ProviderError: the class is no provider, takes no such argument, or needs one that is missing.
    """
    name = provider.__name__
    start_name, stop_name = _find_method(provider, _START), _find_method(provider, _STOP)
    init = _Call(f"{name}()", provider)
    start = _Call(f"{name}.{start_name}", getattr(provider, start_name), bound=False)
    ready = _Call(f"{name}.{_READY}", getattr(provider, _READY, _no_readiness), bound=not hasattr(provider, _READY))
    by_prefix = {"init": init, "start": start, "ready": ready}

    for key, text in request.arguments.items():
        prefix, _, bare_name = key.partition(".")
        takers = [by_prefix[prefix]] if bare_name and prefix in by_prefix else _calls_taking(key, init, start, ready)
        for call in takers:
            call.set_argument(bare_name or key, text)
        if not takers:
            raise ProviderError(_unknown_argument(name, key, init, start, ready))
    copies, hosts = _plan_replicas(provider, request, init, start)
    _set_environment(name, request, init, start)
    init.check_required()
    start.check_required()
    _extend_timeout(ready, ready_s)
    return ProviderCalls(init.arguments, start.arguments, ready.arguments, start_name, stop_name, copies, hosts)


class _Call:
    """One callable's parameters, and the arguments it will get."""

    def __init__(self, name: str, function: Callable[..., Any], *, bound: bool = True) -> None:
        self._name = name
        self.arguments: dict[str, Any] = {}
        parameters = list(inspect.signature(function).parameters.values())[0 if bound else 1 :]
        self.parameters = {parameter.name: parameter for parameter in parameters if parameter.kind in _NAMED_KINDS}
        self._takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)

    def set_argument(self, name: str, text: str) -> None:
        if name not in self.parameters and not self._takes_any:
            hint = suggestion(name, self.parameters) if self.parameters else ": it takes none"
            raise ProviderError(f"{self._name} takes no argument {name!r}{hint}")
        self.arguments[name] = _parse_value(text, self.parameters.get(name))

    def check_required(self) -> None:
        missing = [
            name
            for name, parameter in self.parameters.items()
            if parameter.default is parameter.empty and name not in self.arguments
        ]
        if missing:
            examples = ",".join(f"{name}=VALUE" for name in missing)
            raise ProviderError(f"{self._name} needs {' and '.join(missing)}; add {examples}")


def _no_readiness() -> None:
    """Stand in for the readiness of a provider that has none."""


def _find_method(provider: type, names: tuple[str, str]) -> str:
    for name in names:
        if callable(getattr(provider, name, None)):
            return name
    raise ProviderError(f"{provider.__name__} is no OpenEnv provider: it has neither {names[0]} nor {names[1]}")


def _calls_taking(key: str, init: _Call, start: _Call, ready: _Call) -> list[_Call]:
    first = [call for call in (init, start) if key in call.parameters]
    return first or [call for call in (ready,) if key in call.parameters and key != _BASE_URL]


def _unknown_argument(name: str, key: str, *calls: _Call) -> str:
    parameters = dict.fromkeys(parameter for call in calls for parameter in call.parameters if parameter != _BASE_URL)
    similar = suggestion(key, parameters) if parameters else ""
    hint = similar if "did you mean" in similar else ""
    return f"{name} takes no argument {key!r}{hint} (it takes {', '.join(parameters) or 'none'})"


def _parse_value(text: str, parameter: inspect.Parameter | None) -> Any:
    """Read text as JSON where it is some, unless the parameter is declared as text."""
    declared = str(parameter.annotation) if parameter is not None else ""
    if declared in _TEXT_ANNOTATIONS and not text.startswith('"'):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _plan_replicas(provider: type, request: ServerRequest, init: _Call, start: _Call) -> tuple[int, int | None]:
    """Return how many providers are made and how many servers that gives."""
    replicating_calls = [call for call in (init, start) if "replicas" in call.parameters]
    if any(parent.__name__ == _REPLICATES_ITSELF for parent in provider.__mro__):
        replicating_calls = [start]
    if replicating_calls:
        if request.replicas is not None:
            replicating_calls[-1].arguments["replicas"] = request.replicas
        return 1, request.replicas
    copies = request.replicas or 1
    if copies > 1 and "port" in {**init.arguments, **start.arguments}:
        raise ProviderError(f"{provider.__name__}: port= is for one server; leave it out with replicas={copies}")
    return copies, copies


def _set_environment(name: str, request: ServerRequest, init: _Call, start: _Call) -> None:
    env = dict(request.env)
    if request.workers is not None:
        if "workers" in start.parameters:
            start.arguments["workers"] = request.workers
        else:
            env.setdefault("WORKERS", str(request.workers))
    if not env:
        return
    takers = [call for call in (start, init) if _ENV in call.parameters]
    if any(_ENV in call.arguments for call in takers):
        raise ProviderError(f"{name}: {_ENV}= and env.NAME= are the same; write env.NAME=VALUE")
    if not takers:
        raise ProviderError(f"{name} takes no {_ENV}, so {', '.join(env)} cannot reach the server; leave it out")
    takers[0].arguments[_ENV] = env


def _extend_timeout(ready: _Call, ready_s: float) -> None:
    """Raise a short default, such as LocalDockerProvider's 30 s; None means that the provider knows its own."""
    parameter = ready.parameters.get(_TIMEOUT)
    if parameter is None or _TIMEOUT in ready.arguments:
        return
    if isinstance(parameter.default, int | float) and parameter.default < ready_s:
        ready.arguments[_TIMEOUT] = ready_s


def takes_base_url(provider: object) -> bool:
    """Say whether `wait_for_ready` is told the URL, as a container provider's is."""
    return _BASE_URL in inspect.signature(getattr(provider, _READY)).parameters
