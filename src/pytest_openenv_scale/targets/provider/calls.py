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

_TEXT = ("str", "Optional[str]", "typing.Optional[str]", "str | None", "<class 'str'>")
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class ProviderError(Exception):
    """A provider cannot be used as it was asked for; one line."""


@dataclass(frozen=True)
class ServerRequest:
    """What a specification asks of a provider: `arguments` are its own, as text."""

    arguments: Mapping[str, str] = field(default_factory=dict[str, str])
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    replicas: int | None = None
    workers: int | None = None


@dataclass(frozen=True)
class Calls:
    """The arguments of each call; `copies` providers are made, behind which `hosts` servers stand (None: unknown)."""

    init: dict[str, Any]
    start: dict[str, Any]
    ready: dict[str, Any]
    start_name: str
    stop_name: str
    copies: int
    hosts: int | None


def plan_calls(provider: type, asked: ServerRequest, ready_s: float) -> Calls:
    """Decide what each call of a provider gets; its readiness may take `ready_s` seconds, or longer by its own default.

    A key goes to the constructor and to start, whichever names it, else to `wait_for_ready`; `init.NAME`,
    `start.NAME` and `ready.NAME` go to one of them, through its `**kwargs` too.

    Raises:
        ProviderError: the class is no provider, takes no such argument, or needs one that is missing.
    """
    name = provider.__name__
    start_name, stop_name = _method(provider, _START), _method(provider, _STOP)
    init = _Call(f"{name}()", provider)
    start = _Call(f"{name}.{start_name}", getattr(provider, start_name), bound=False)
    ready = _Call(f"{name}.{_READY}", getattr(provider, _READY, _nothing), bound=not hasattr(provider, _READY))
    by_prefix = {"init": init, "start": start, "ready": ready}

    for key, text in asked.arguments.items():
        prefix, _, bare = key.partition(".")
        takers = [by_prefix[prefix]] if bare and prefix in by_prefix else _takers(key, init, start, ready)
        for call in takers:
            call.give(bare or key, text)
        if not takers:
            raise ProviderError(_unknown(name, key, init, start, ready))
    copies, hosts = _replicate(provider, asked, init, start)
    _set_environment(name, asked, init, start)
    init.require()
    start.require()
    _allow_time(ready, ready_s)
    return Calls(init.given, start.given, ready.given, start_name, stop_name, copies, hosts)


class _Call:
    """One callable's parameters, and the arguments it will get."""

    def __init__(self, what: str, function: Callable[..., Any], *, bound: bool = True) -> None:
        self._what = what
        self.given: dict[str, Any] = {}
        parameters = list(inspect.signature(function).parameters.values())[0 if bound else 1 :]
        self.named = {parameter.name: parameter for parameter in parameters if parameter.kind in _NAMED}
        self._open = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)

    def give(self, name: str, text: str) -> None:
        if name not in self.named and not self._open:
            known = suggestion(name, self.named) if self.named else ": it takes none"
            raise ProviderError(f"{self._what} takes no argument {name!r}{known}")
        self.given[name] = _value(text, self.named.get(name))

    def require(self) -> None:
        missing = [
            name
            for name, parameter in self.named.items()
            if parameter.default is parameter.empty and name not in self.given
        ]
        if missing:
            wanted = ",".join(f"{name}=VALUE" for name in missing)
            raise ProviderError(f"{self._what} needs {' and '.join(missing)}; add {wanted}")


def _nothing() -> None:
    """Stand in for the readiness of a provider that has none."""


def _method(provider: type, names: tuple[str, str]) -> str:
    for name in names:
        if callable(getattr(provider, name, None)):
            return name
    raise ProviderError(f"{provider.__name__} is no OpenEnv provider: it has neither {names[0]} nor {names[1]}")


def _takers(key: str, init: _Call, start: _Call, ready: _Call) -> list[_Call]:
    first = [call for call in (init, start) if key in call.named]
    return first or [call for call in (ready,) if key in call.named and key != _BASE_URL]


def _unknown(name: str, key: str, *calls: _Call) -> str:
    known = dict.fromkeys(taken for call in calls for taken in call.named if taken != _BASE_URL)
    hint = suggestion(key, known) if known else ""
    near = hint if "did you mean" in hint else ""
    return f"{name} takes no argument {key!r}{near} (it takes {', '.join(known) or 'none'})"


def _value(text: str, parameter: inspect.Parameter | None) -> Any:
    """Read text as JSON where it is some, unless the parameter is declared as text."""
    declared = str(parameter.annotation) if parameter is not None else ""
    if declared in _TEXT and not text.startswith('"'):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _replicate(provider: type, asked: ServerRequest, init: _Call, start: _Call) -> tuple[int, int | None]:
    """Return how many providers are made and how many servers that gives."""
    by_itself = [call for call in (init, start) if "replicas" in call.named]
    if any(parent.__name__ == _REPLICATES_ITSELF for parent in provider.__mro__):
        by_itself = [start]
    if by_itself:
        if asked.replicas is not None:
            by_itself[-1].given["replicas"] = asked.replicas
        return 1, asked.replicas
    copies = asked.replicas or 1
    if copies > 1 and "port" in {**init.given, **start.given}:
        raise ProviderError(f"{provider.__name__}: port= is for one server; leave it out with replicas={copies}")
    return copies, copies


def _set_environment(name: str, asked: ServerRequest, init: _Call, start: _Call) -> None:
    env = dict(asked.env)
    if asked.workers is not None:
        if "workers" in start.named:
            start.given["workers"] = asked.workers
        else:
            env.setdefault("WORKERS", str(asked.workers))
    if not env:
        return
    takers = [call for call in (start, init) if _ENV in call.named]
    if any(_ENV in call.given for call in takers):
        raise ProviderError(f"{name}: {_ENV}= and env.NAME= are the same; write env.NAME=VALUE")
    if not takers:
        raise ProviderError(f"{name} takes no {_ENV}, so {', '.join(env)} cannot reach the server; leave it out")
    takers[0].given[_ENV] = env


def _allow_time(ready: _Call, ready_s: float) -> None:
    """Raise a short default, such as LocalDockerProvider's 30 s; None means that the provider knows its own."""
    parameter = ready.named.get(_TIMEOUT)
    if parameter is None or _TIMEOUT in ready.given:
        return
    if isinstance(parameter.default, int | float) and parameter.default < ready_s:
        ready.given[_TIMEOUT] = ready_s


def takes_base_url(provider: object) -> bool:
    """Say whether `wait_for_ready` is told the URL, as a container provider's is."""
    return _BASE_URL in inspect.signature(getattr(provider, _READY)).parameters
