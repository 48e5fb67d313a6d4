"""The life of a target that starts something: started, handed over once it serves, taken down on every way out."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, Self, TypeVar, final

from pytest_openenv_scale.core.endpoint import Endpoint, ExitStatus, ServerSample
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.target_spec import TargetSpec, redact_target
from pytest_openenv_scale.core.text import end_of_log

from .options import TargetContext, TargetOptions

HIDDEN = "***"
_SHOWN_LOG_LINES = 20
_SHOWN_VARIABLES = ("WORKERS", "MAX_CONCURRENT_ENVS", "HOST", "PORT")


class DescriptionPart(NamedTuple):
    """One thing that would be started, or what it reads: a command, an environment, a script, a configuration."""

    title: str
    text: str


def shell_command(words: Sequence[str], environ: Mapping[str, str] | None = None) -> str:
    """Return a command as a shell takes it, each variable on a line of its own."""
    variables = [f"{name}={text if text == HIDDEN else shlex.quote(text)} \\" for name, text in (environ or {}).items()]
    return "\n".join([*sorted(variables), shlex.join(words)])


def shown_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return variables as they may be shown: all values hidden but those of our own settings."""
    return {name: text if name in _SHOWN_VARIABLES else HIDDEN for name, text in variables.items()}


_SHOWN_LINE = 120
"""Most characters of a line of a log that are shown."""


def log_words(log: str) -> str:
    """Return how a log ends, in a few words."""
    lines = log.strip().splitlines()
    return f"log ends: {lines[-1].strip()[:_SHOWN_LINE]}" if lines else "log empty"


def with_log(message: str, log: str, name: str = "the server's log") -> str:
    """Return `message` with the end of a log below it, where there is one, and the exception that it names."""
    return "\n".join([message, f"{name} ends:", *end_of_log(log, _SHOWN_LOG_LINES)]) if log.strip() else message


_T = TypeVar("_T")


class _Lifetime(ExitStack):
    """Takes everything down whatever fails; `leftovers` are the messages of what could not be."""

    def __init__(self) -> None:
        super().__init__()
        self.leftovers: list[str] = []

    def enter_context(self, cm: AbstractContextManager[_T]) -> _T:
        value = cm.__enter__()
        self.callback(cm.__exit__, None, None, None)
        return value

    def callback(self, callback: Callable[..., _T], /, *args: Any, **kwds: Any) -> Callable[..., _T]:
        super().callback(self._collect, callback, *args, **kwds)
        return callback

    def _collect(self, work: Callable[..., object], *args: Any, **kwds: Any) -> None:
        try:
            work(*args, **kwds)
        except TargetError as error:
            self.leftovers.append(str(error))


class Server(Protocol):
    """What runs and can be watched: a process, a container."""

    def exit_status(self) -> ExitStatus | None:
        """Return how it ended, or None while it runs."""
        ...

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines of its output, also after its end."""
        ...

    def sample(self) -> ServerSample | None:
        """Return what it uses now; None where that cannot be read."""
        ...


class StartedTarget(ABC):
    """A target whose `start` is its own; see `Target` for what entering and leaving does.

    The label, cores and hardware of `options` take the place of those that `start` finds.
    """

    def __init__(self, spec: TargetSpec, context: TargetContext, options: TargetOptions) -> None:
        self.spec = redact_target(spec)
        self.context = context
        self._named = options
        self._lifetime = _Lifetime()

    @abstractmethod
    def start(self, stack: ExitStack) -> Endpoint:
        """Return the endpoint once it has answered a session; `stack` gets all that has to be taken down again.

        Raises:
            TargetError: it did not start, or did not answer as OpenEnv within its deadline.
        """

    @abstractmethod
    def describe(self) -> Sequence[DescriptionPart]:
        """Return what `start` would start, without starting or reaching anything; what may be secret is hidden.

        Raises:
            TargetError: what the specification names is not there.
        """

    def endpoint(
        self, urls: Sequence[str], label: str, server: Server | None = None, *, notes: Sequence[str] = (), **facts: Any
    ) -> Endpoint:
        """Return the endpoint at `urls`, watched by way of `server`; `facts` are other fields of it."""
        if server is not None:
            facts = {
                "sampler": server.sample,
                "log_reader": server.log_tail,
                "exit_reader": server.exit_status,
                **facts,
            }
        headers = {**facts.pop("headers", {}), **self.context.headers}
        network = self.context.network
        notes = (*notes, *network.notes)
        return Endpoint(tuple(urls), label, self.spec, headers=headers, network=network, notes=notes, **facts)

    @final
    def __enter__(self) -> Endpoint:
        """Start; where that fails, nothing is left, or the error says what is."""
        self._lifetime = _Lifetime()
        try:
            endpoint = self.start(self._lifetime)
        except BaseException as error:
            self._lifetime.close()
            if self._lifetime.leftovers and isinstance(error, TargetError):
                raise TargetError("\n".join([str(error), *self._lifetime.leftovers])) from None
            raise
        named = self._named
        return replace(
            endpoint,
            label=named.label or endpoint.label,
            cores=named.cores or endpoint.cores,
            hardware=named.hardware or endpoint.hardware,
        )

    @final
    def __exit__(self, *error: object) -> None:
        """Take down what was started.

        Raises:
            TargetError: names what could not be taken down and may still run, a line for each.
        """
        self._lifetime.close()
        if self._lifetime.leftovers:
            raise TargetError("\n".join(self._lifetime.leftovers))


class Startable(ABC):
    """What has a `start` and a `stop`: also a context manager between the two."""

    @abstractmethod
    def start(self) -> None:
        """Start it; nothing is left of it where that fails."""

    @abstractmethod
    def stop(self) -> None:
        """Stop it."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
