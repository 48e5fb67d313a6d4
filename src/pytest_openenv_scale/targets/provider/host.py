"""The process a provider lives in: its prints stay out of pytest's terminal, and it outlives pytest to stop.

Whatever ends pytest, SIGKILL included, this process gets SIGTERM and stops the provider in order. Its
request comes and its events go as lines of JSON over an inherited socket, so that no argument shows in a list of
processes.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, TextIO

from pytest_openenv_scale.core.own_process import import_user_module, standard_library_first
from pytest_openenv_scale.core.parsing import suggestion
from pytest_openenv_scale.core.serialization import Jsonable
from pytest_openenv_scale.core.system import install_extra
from pytest_openenv_scale.core.target_spec import names_secret

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


END_SIGNAL = signal.SIGTERM
"""The signal at which the process stops the provider and ends."""

_START_GRACE_S = 20
"""Seconds a start gets to finish once the end is asked for: interrupted, a provider may lose what it just started."""


@dataclass(frozen=True)
class ProviderRequest(Jsonable):
    """What the process is to run: `provider` as module:Class, `paths` in front of sys.path."""

    provider: str
    server_request: ServerRequest
    ready_s: float
    paths: tuple[str, ...] = ()


class _EndedError(BaseException):
    """The end was requested; a BaseException, so that no provider's `except Exception` catches it."""


@dataclass
class _HostSignals:
    """Raises SIGTERM as an exception in the main thread, once; a start first gets time to finish."""

    starting: bool = False
    end_requested: bool = False
    ended: bool = False

    def listen(self) -> None:
        for number in (END_SIGNAL, signal.SIGALRM):
            signal.signal(number, self._receive)

    def ignore(self) -> None:
        for number in (END_SIGNAL, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)

    @contextmanager
    def deferring_end(self) -> Generator[None]:
        self.starting = True
        try:
            yield
        finally:
            self.starting = False
            signal.alarm(0)
        if self.end_requested:
            self._end()

    def _receive(self, number: int, frame: object) -> None:
        if number == END_SIGNAL and self.starting:
            self.end_requested = True
            signal.alarm(_START_GRACE_S)
        else:
            self._end()

    def _end(self) -> None:
        # A second exception would break off the stopping that the first began.
        if not self.ended:
            self.ended = True
            raise _EndedError


@dataclass
class _Host:
    """Starts, waits for and stops the providers of one request, and sends what happens as events."""

    request: ProviderRequest
    stream: TextIO
    signals: _HostSignals
    secrets: frozenset[str] = field(default_factory=frozenset[str])

    def run(self) -> None:
        stack = ExitStack()
        try:
            try:
                self._serve(stack)
            except ProviderError as error:
                self.send_event(failed=str(error))
            finally:
                self.signals.ignore()
        except _EndedError:
            pass
        finally:
            stack.close()

    def _serve(self, stack: ExitStack) -> None:
        provider = load_class(self.request.provider)
        calls = plan_calls(provider, self.request.server_request, self.request.ready_s)
        urls = [self._start(provider, calls, stack) for _ in range(calls.copies)]
        self.send_event(started=urls, hosts=calls.hosts)
        while True:
            signal.pause()

    def _start(self, cls: type, calls: ProviderCalls, stack: ExitStack) -> str:
        name = cls.__name__
        with self._errors_in_one_line(name):
            provider: Any = cls(**calls.init)
        stack.callback(self._close, name, provider)
        stack.callback(self._stop, name, calls.stop_name, provider)
        with self._errors_in_one_line(f"{name}.{calls.start_name}"), self.signals.deferring_end():
            url: object = getattr(provider, calls.start_name)(**calls.start)
        if not isinstance(url, str) or not url.startswith(("http://", "https://", "ws://", "wss://")):
            raise ProviderError(f"{name}.{calls.start_name} returned no URL but {self._hide_secrets(repr(url)[:80])}")
        if hasattr(provider, "wait_for_ready"):
            with self._errors_in_one_line(f"{name}.wait_for_ready"):
                provider.wait_for_ready(*([url] if takes_base_url(provider) else []), **calls.ready)
        return url.rstrip("/")

    def _stop(self, name: str, stop_name: str, provider: Any) -> None:
        try:
            getattr(provider, stop_name)()
        except Exception as error:
            self.send_event(left=f"{name}.{stop_name} failed, what it started may still run: {self._error_line(error)}")

    def _close(self, name: str, provider: Any) -> None:
        """Release what a container provider holds besides its container, such as an SDK's client."""
        try:
            getattr(provider, "close", lambda: None)()
        except Exception as error:
            self.send_event(left=f"{name}.close failed: {self._error_line(error)}")

    @contextmanager
    def _errors_in_one_line(self, what: str) -> Generator[None]:
        """Turn what provider code raises into one line; its traceback goes to the log."""
        try:
            yield
        except (Exception, SystemExit) as error:
            trace = error.__traceback__
            while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
                trace = trace.tb_next
            lines = traceback.format_exception(type(error), error, trace, chain=False)
            print(self._hide_secrets("".join(lines)), file=sys.stderr, flush=True)
            raise ProviderError(f"{what} failed: {self._error_line(error)}") from None

    def _error_line(self, error: BaseException) -> str:
        lines = str(error).strip().splitlines()
        return self._hide_secrets(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)

    def _hide_secrets(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text

    def send_event(self, **event: object) -> None:
        # Nobody listens any more where pytest was killed.
        with contextlib.suppress(OSError):
            print(json.dumps(event), file=self.stream, flush=True)


def load_class(name: str) -> type:
    """Import the class that `module:Class` names.

    Raises:
        ProviderError: one line; where openenv is missing, how to install it.
    """
    module_name, _, attribute = name.partition(":")
    try:
        loaded: object = import_user_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing == "openenv":
            raise ProviderError(f"{name} needs the openenv package: {install_extra('openenv')}") from None
        raise ProviderError(f"{name} does not import: there is no module {missing!r} here") from None
    except Exception as error:
        traceback.print_exc()
        raise ProviderError(f"{name} does not import: {type(error).__name__}: {error}") from None
    for part in attribute.split("."):
        if not hasattr(loaded, part):
            raise ProviderError(f"{module_name} has no {attribute!r}; write provider:MODULE:CLASS")
        loaded = getattr(loaded, part)
    if not isinstance(loaded, type):
        raise ProviderError(f"{name} is no class but of type {type(loaded).__name__}")
    return loaded


def secret_values(request: ServerRequest) -> frozenset[str]:
    """Return the values whose names say that they must not be shown."""
    settings: Mapping[str, str] = {**request.arguments, **request.env}
    return frozenset(value for name, value in settings.items() if value and names_secret(name))


def main(arguments: list[str]) -> None:
    """Serve one request until SIGTERM."""
    parser = argparse.ArgumentParser(prog="pytest_openenv_scale.targets.provider.host")
    parser.add_argument("--fd", type=int, required=True)
    signals = _HostSignals()
    signals.listen()
    parent = os.getppid()
    channel = socket.socket(fileno=parser.parse_args(arguments).fd)
    channel.set_inheritable(False)
    with channel, channel.makefile("rw", encoding="utf-8") as stream:
        request = ProviderRequest.from_json(json.loads(stream.readline()))
        sys.path[:] = standard_library_first([*request.paths, *sys.path])
        _Host(request, stream, signals, secret_values(request.server_request)).run()
    if os.getppid() != parent:
        # Nobody is left to end what outlived its own parent, such as a server whose launcher was killed.
        os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
