"""The process a provider lives in: its prints stay out of pytest's terminal, and it outlives pytest to stop.

Whatever ends pytest, SIGKILL included, this process gets SIGTERM and stops the provider in order. Orders
come and events go as lines of JSON over an inherited socket, so that no argument shows in a list of processes.
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
from dataclasses import asdict, dataclass, field
from typing import Any, TextIO

from pytest_openenv_scale.core.own_process import import_user_module, standard_library_first
from pytest_openenv_scale.core.target_spec import names_secret

from .calls import Calls, ProviderError, ServerRequest, plan_calls, takes_base_url

ENDS = signal.SIGTERM
"""What ends the process: it stops the provider then."""

_PATIENCE_S = 20
"""Seconds a start gets to finish once the end is asked for: interrupted, a provider may lose what it just started."""

_INSTALL = "pip install 'pytest-openenv-scale[openenv]'"


@dataclass(frozen=True)
class ProviderRequest:
    """What the process is to run: `provider` as module:Class, `paths` in front of sys.path."""

    provider: str
    asked: ServerRequest
    ready_s: float
    paths: tuple[str, ...] = ()

    def to_line(self) -> str:
        """Return the order as one line."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_line(cls, line: str) -> ProviderRequest:
        """Read what `to_line` wrote."""
        sent = json.loads(line)
        return cls(sent["provider"], ServerRequest(**sent["asked"]), sent["ready_s"], tuple(sent["paths"]))


class _EndedError(BaseException):
    """The end was asked for; no provider's `except Exception` keeps it."""


@dataclass
class _HostSignals:
    """SIGTERM as an exception in the main thread, once; a start is first given time to finish."""

    patient: bool = False
    asked: bool = False
    ended: bool = False

    def listen(self) -> None:
        for number in (ENDS, signal.SIGALRM):
            signal.signal(number, self._receive)

    def ignore(self) -> None:
        for number in (ENDS, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)

    @contextmanager
    def patience(self) -> Generator[None]:
        self.patient = True
        try:
            yield
        finally:
            self.patient = False
            signal.alarm(0)
        if self.asked:
            self._end()

    def _receive(self, number: int, frame: object) -> None:
        if number == ENDS and self.patient:
            self.asked = True
            signal.alarm(_PATIENCE_S)
        else:
            self._end()

    def _end(self) -> None:
        # A second exception would break off the stopping that the first began.
        if not self.ended:
            self.ended = True
            raise _EndedError


@dataclass
class _Host:
    """Starts, waits for and stops the providers of one order, and tells how that went."""

    order: ProviderRequest
    talk: TextIO
    signals: _HostSignals
    secrets: frozenset[str] = field(default_factory=frozenset[str])

    def run(self) -> None:
        life = ExitStack()
        try:
            try:
                self._serve(life)
            except ProviderError as error:
                self.tell(failed=str(error))
            finally:
                self.signals.ignore()
        except _EndedError:
            pass
        finally:
            life.close()

    def _serve(self, life: ExitStack) -> None:
        provider = load_class(self.order.provider)
        calls = plan_calls(provider, self.order.asked, self.order.ready_s)
        urls = [self._start(provider, calls, life) for _ in range(calls.copies)]
        self.tell(started=urls, hosts=calls.hosts)
        while True:
            signal.pause()

    def _start(self, cls: type, calls: Calls, life: ExitStack) -> str:
        name = cls.__name__
        with self._told(name):
            provider: Any = cls(**calls.init)
        life.callback(self._close, name, provider)
        life.callback(self._stop, name, calls.stop_name, provider)
        with self._told(f"{name}.{calls.start_name}"), self.signals.patience():
            url: object = getattr(provider, calls.start_name)(**calls.start)
        if not isinstance(url, str) or not url.startswith(("http://", "https://", "ws://", "wss://")):
            raise ProviderError(f"{name}.{calls.start_name} returned no URL but {self._hidden(repr(url)[:80])}")
        if hasattr(provider, "wait_for_ready"):
            with self._told(f"{name}.wait_for_ready"):
                provider.wait_for_ready(*([url] if takes_base_url(provider) else []), **calls.ready)
        return url.rstrip("/")

    def _stop(self, name: str, stop_name: str, provider: Any) -> None:
        try:
            getattr(provider, stop_name)()
        except Exception as error:
            self.tell(left=f"{name}.{stop_name} failed, what it started may still run: {self._in_one_line(error)}")

    def _close(self, name: str, provider: Any) -> None:
        """Release what a container provider holds besides its container, such as an SDK's client."""
        try:
            getattr(provider, "close", lambda: None)()
        except Exception as error:
            self.tell(left=f"{name}.close failed: {self._in_one_line(error)}")

    @contextmanager
    def _told(self, what: str) -> Generator[None]:
        """Turn what provider code raises into one line; its traceback goes to the log."""
        try:
            yield
        except (Exception, SystemExit) as error:
            trace = error.__traceback__
            while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
                trace = trace.tb_next
            lines = traceback.format_exception(type(error), error, trace, chain=False)
            print(self._hidden("".join(lines)), file=sys.stderr, flush=True)
            raise ProviderError(f"{what} failed: {self._in_one_line(error)}") from None

    def _in_one_line(self, error: BaseException) -> str:
        lines = str(error).strip().splitlines()
        return self._hidden(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)

    def _hidden(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text

    def tell(self, **event: object) -> None:
        # Nobody listens any more where pytest was killed.
        with contextlib.suppress(OSError):
            print(json.dumps(event), file=self.talk, flush=True)


def load_class(name: str) -> type:
    """Import the class that `module:Class` names.

    Raises:
        ProviderError: one line; where openenv is missing, how to install it.
    """
    module_name, _, attribute = name.partition(":")
    try:
        found: object = import_user_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing == "openenv":
            raise ProviderError(f"{name} needs the openenv package: {_INSTALL}") from None
        raise ProviderError(f"{name} does not import: there is no module {missing!r} here") from None
    except Exception as error:
        traceback.print_exc()
        raise ProviderError(f"{name} does not import: {type(error).__name__}: {error}") from None
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ProviderError(f"{module_name} has no {attribute!r}; write provider:MODULE:CLASS")
        found = getattr(found, part)
    if not isinstance(found, type):
        raise ProviderError(f"{name} is no class but of type {type(found).__name__}")
    return found


def secret_values(asked: ServerRequest) -> frozenset[str]:
    """Return the values whose names say that they must not be shown."""
    given: Mapping[str, str] = {**asked.arguments, **asked.env}
    return frozenset(value for name, value in given.items() if value and names_secret(name))


def main(arguments: list[str]) -> None:
    """Run one order until SIGTERM."""
    parser = argparse.ArgumentParser(prog="pytest_openenv_scale.targets.provider.host")
    parser.add_argument("--fd", type=int, required=True)
    signals = _HostSignals()
    signals.listen()
    parent = os.getppid()
    channel = socket.socket(fileno=parser.parse_args(arguments).fd)
    channel.set_inheritable(False)
    with channel, channel.makefile("rw", encoding="utf-8") as talk:
        order = ProviderRequest.from_line(talk.readline())
        sys.path[:] = standard_library_first([*order.paths, *sys.path])
        _Host(order, talk, signals, secret_values(order.asked)).run()
    if os.getppid() != parent:
        # Nobody is left to end what outlived its own parent, such as a server whose launcher was killed.
        os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
