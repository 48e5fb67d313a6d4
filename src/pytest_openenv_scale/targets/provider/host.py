"""The process a provider lives in: its prints stay out of pytest's terminal, and it outlives pytest to stop.

Whatever ends pytest, SIGKILL included, this process gets SIGTERM and stops the provider in order. Its
request comes and its events go as lines of JSON over an inherited socket, so that no argument shows in a list of
processes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, TextIO

from pytest_openenv_scale.core.own_process import import_user_module, standard_library_first
from pytest_openenv_scale.core.serialization import Jsonable
from pytest_openenv_scale.core.system import install_extra
from pytest_openenv_scale.core.target_spec import names_secret

from .calls import ProviderCalls, ProviderError, ServerRequest, plan_calls, takes_base_url

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
