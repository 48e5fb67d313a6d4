"""`local[:module:app|:PATH|:builtin]`: an ASGI application in hypercorn or uvicorn on this machine."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pytest_openenv_scale.core.endpoint import Endpoint, ExitStatus, SessionSettings
from pytest_openenv_scale.core.errors import GrammarError, TargetError
from pytest_openenv_scale.core.system import install_command, url_host, usable_cores
from pytest_openenv_scale.core.target_spec import TargetSpec
from pytest_openenv_scale.targets.common.application import BUILT_IN, find_application, is_app_name
from pytest_openenv_scale.targets.common.base import HIDDEN, DescriptionPart, Startable, StartedTarget, shell_command
from pytest_openenv_scale.targets.common.options import (
    StartOptions,
    TargetContext,
    TargetOptions,
    count,
    is_path,
    one_of,
    option,
    read_options,
    tcp_port,
    variables,
)
from pytest_openenv_scale.targets.common.readiness import NotReadyError, Watch, start_s, wait_until_ready
from pytest_openenv_scale.targets.common.sampling import listening_processes
from pytest_openenv_scale.targets.common.source import settings_of_application
from pytest_openenv_scale.targets.common.supervisor import ServerProcess

from .launch import command
from .serving import LOG_PREFIX, PATH_VARIABLE, SERVERS, ServeSettings, bind, count_ready_workers, largest_backlog

_MAX_ENVS = "MAX_CONCURRENT_ENVS"
_MIN_BACKLOG = 2048
_WHOLE_LOG_LINES = 10_000
_FIRST_DESCRIPTOR = 3
"""The descriptor shown in a command whose socket is not open yet."""

_WORKERS_S = 10.0
"""Seconds the other workers get at least once the first has answered a session; at most as long again as that took."""


@dataclass(frozen=True)
class Launch:
    """How a server is started: what is added to the environment, and the command that gets its open socket."""

    command: tuple[str, ...]
    environ: Mapping[str, str] = field(repr=False)
    folder: Path
    address: str


@dataclass(frozen=True)
class ServerOptions(StartOptions):
    """How an application is served. `workers` None: all cores for the built-in environment, 1 for an app."""

    app: str | None = option()
    server: Literal["hypercorn", "uvicorn"] = option(one_of(*SERVERS), "hypercorn")
    workers: int | None = option(count)
    max_envs: int | None = option(count)
    nofile: int | None = option(count)
    limit_concurrency: int | None = None
    env: Mapping[str, str] = variables()


def check_options(target: str, options: ServerOptions) -> None:
    """Refuse what can be refused before anything starts.

    Raises:
        GrammarError: the app is not named as module:app, or a setting is not the server's.
    """
    if options.app is not None and options.app != BUILT_IN and not is_app_name(options.app):
        raise GrammarError(
            f"target {target}: {options.app!r} is not module:app; write for example {_app_example(target)}"
        )
    if options.limit_concurrency and options.server != "uvicorn":
        raise GrammarError(f"target {target}: limit_concurrency is uvicorn's; add server=uvicorn")


def target_name(spec: str) -> str:
    """Return what the text of a specification begins with: "local" of `local:module:app`."""
    return spec.partition(":")[0].partition(",")[0]


def _app_example(target: str) -> str:
    return "local:server.app:app or local:./folder" if target == "local" else "app=server.app:app"


class ServedApplication(Startable):
    """An application in a child process, from `start()` to `stop()`; also a context manager.

    `target` is the specification errors name; `host` is bound, `port` None takes a free one.
    """

    def __init__(
        self,
        options: ServerOptions,
        context: TargetContext,
        *,
        target: str,
        host: str = "127.0.0.1",
        port: int | None = None,
        log_path: Path | None = None,
    ) -> None:
        self._options = options
        self._context = context
        self._target = target
        self._host = host
        self._requested_port = port
        self._log_path = log_path
        self.application = find_application(context, options.app, target_name(target))
        workers = options.workers or (usable_cores() if self.application.built_in else 1)
        backlog = max(context.largest_batch, _MIN_BACKLOG)
        self._serving = ServeSettings(
            self.application.name, options.server, workers, backlog, options.limit_concurrency
        )
        self.port = 0
        self._started_at = 0.0
        self._process: ServerProcess | None = None
        self._environ: dict[str, str] = {}

    def start(self, preferred_port: int | None = None) -> None:
        """Bind the address and start the server; it answers some time later.

        Where no port was asked for, `preferred_port` is taken if it is free.

        Raises:
            TargetError: the address cannot be had, or the server is not installed.
        """
        name = target_name(self._target)
        if self._serving.server == "uvicorn":
            _require_uvicorn(name)
        with _bound_socket(name, self._host, self._requested_port, preferred_port) as listener:
            self.port = int(listener.getsockname()[1])
            self._environ = self._make_environ()
            self._process = ServerProcess(
                command(self._serving, listener.fileno()),
                env=self._environ,
                cwd=self._context.root,
                log_path=self._log_path,
                nofile=self._options.nofile,
                pass_fds=[listener.fileno()],
            )
            self._process.start()
        self._started_at = time.monotonic()

    def launch(self) -> Launch:
        """Return how the server would be started, without starting it; values of `env.NAME=` are hidden.

        Raises:
            TargetError: there is an `openenv.yaml` that names no app.
        """
        self.port = self._requested_port or 0
        environ = {**self._make_environ(), **dict.fromkeys(self._options.env, HIDDEN)}
        added = {name: text for name, text in environ.items() if text and os.environ.get(name) != text}
        address = (
            f"{url_host(self._host)}:{self._requested_port}" if self._requested_port else f"a free port of {self._host}"
        )
        return Launch(tuple(command(self._serving, _FIRST_DESCRIPTOR)), added, self._context.root, address)

    def describe(self, role: str = "server") -> DescriptionPart:
        """Return how the server would be started.

        Raises:
            TargetError: there is an `openenv.yaml` that names no app.
        """
        launch = self.launch()
        title = f"{role}, in {launch.folder}, on an open socket at {launch.address}"
        return DescriptionPart(title, shell_command(launch.command, launch.environ))

    def stop(self) -> None:
        """End the server and everything it started; may be repeated."""
        if self._process is not None:
            self._process.stop()

    @property
    def url(self) -> str:
        """Where a client on this machine reaches the server."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        return f"http://{url_host(host)}:{self.port}"

    @property
    def process(self) -> ServerProcess:
        """The server's process, once it was started."""
        if self._process is None:
            raise RuntimeError("the server was not started")
        return self._process

    @property
    def limits(self) -> dict[str, str | int]:
        """The settings the server was started with."""
        limits: dict[str, str | int] = {"server": self._serving.server, "workers": self._serving.workers}
        if self._environ.get(_MAX_ENVS, "").isdecimal():
            limits["max_envs"] = int(self._environ[_MAX_ENVS])
        if self._serving.limit_concurrency is not None:
            limits["limit_concurrency"] = self._serving.limit_concurrency
        if self._options.nofile is not None:
            limits["nofile"] = self._options.nofile
        return limits

    @property
    def session_settings(self) -> SessionSettings | None:
        """What the application's source says of its sessions; None where it cannot be read."""
        return settings_of_application(self.application)

    def wait(self, headers: Mapping[str, str]) -> tuple[str, ...]:
        """Return once a session was answered and every worker serves; the notes say what is missing.

        Raises:
            TargetError: the server ended or did not answer a session in time; its log's end is below.
        """
        try:
            wait_until_ready(
                (self.url,),
                headers,
                start_s(self._options.start_timeout, self._context),
                self._exit_status,
                session=self._context.first_session,
                watch=Watch(state=self.process.state, show=self._context.show_status),
            )
        except NotReadyError as error:
            with_log = self.process.with_log
            if error_line := self._error_line():
                raise TargetError(with_log(f"target {self._target}: {error_line}")) from None
            raise error.target_error(
                self._target, at=f"{self.application.name} at {error.url}", with_log=with_log
            ) from None
        return self._await_workers()

    def _make_environ(self) -> dict[str, str]:
        environ = dict(os.environ)
        paths = self.application.paths
        if paths:
            entries = self._options.env.get("PYTHONPATH", environ.get("PYTHONPATH", "")).split(os.pathsep)
            folders = {path.resolve() for path in paths}
            other_entries = [entry for entry in entries if (self._context.root / entry).resolve() not in folders]
            environ["PYTHONPATH"] = os.pathsep.join(other_entries)
            environ[PATH_VARIABLE] = os.pathsep.join([*map(str, paths), *other_entries])
        environ["PYTHONUNBUFFERED"] = "1"
        if self.application.built_in:
            environ |= {"HOST": self._host, "PORT": str(self.port), "WORKERS": str(self._serving.workers)}
        if self._options.max_envs is not None:
            environ[_MAX_ENVS] = str(self._options.max_envs)
        return {**environ, **{name: text for name, text in self._options.env.items() if name != "PYTHONPATH"}}

    def _exit_status(self) -> ExitStatus | None:
        """Return how the server ended, or the reason it gave for not starting: its supervisor may still run then."""
        error_line = self._error_line()
        return ExitStatus("other", error_line) if error_line else self.process.exit_status()

    def _error_line(self) -> str | None:
        lines = self.process.log_tail(_WHOLE_LOG_LINES).splitlines()
        errors = [line.removeprefix(LOG_PREFIX) for line in lines if line.startswith(LOG_PREFIX)]
        return errors[-1] if errors else None

    def _await_workers(self) -> tuple[str, ...]:
        """Wait until every worker has said that it serves: the first one to answer is not yet all of them."""
        now = time.monotonic()
        deadline = now + max(_WORKERS_S, now - self._started_at)
        while (
            ready_workers := count_ready_workers(self._serving.server, self.process.log_tail(_WHOLE_LOG_LINES))
        ) < self._serving.workers:
            if self.process.exit_status() is not None or time.monotonic() >= deadline:
                return (f"{ready_workers} of {self._serving.workers} workers said that they serve",)
            time.sleep(0.05)
        return ()


@contextmanager
def _bound_socket(target: str, host: str, port: int | None, preferred: int | None) -> Generator[socket.socket]:
    """Yield a socket bound to `host` that the server inherits, so that a free port stays ours."""
    try:
        listener = _bind_first(host, [port] if port else [preferred or 0, 0])
    except OSError as error:
        address = f"{url_host(host)}:{port}" if port else host
        if error.errno == errno.EADDRINUSE:
            pids = listening_processes(port or 0)
            holder = f" by process {pids[0]}" if pids else ""
            raise TargetError(
                f"target {target}: port {port} of {host} is in use{holder}; "
                "write another port=, or leave it out for a free one"
            ) from None
        raise TargetError(f"target {target}: cannot listen on {address}: {error.strerror}") from None
    with listener:
        yield listener


def _bind_first(host: str, ports: Sequence[int]) -> socket.socket:
    for port in ports[:-1]:
        with contextlib.suppress(OSError):
            return bind(host, port)
    return bind(host, ports[-1])


def _require_uvicorn(target: str) -> None:
    for module in ("uvicorn", "websockets"):
        if install := install_command(module):
            raise TargetError(f"target {target}: server=uvicorn needs {module}: {install}")


@dataclass(frozen=True)
class LocalOptions(TargetOptions, ServerOptions):
    """The keys of the target."""

    host: str = option(default="127.0.0.1")
    port: int | None = option(tcp_port)
    limit_concurrency: int | None = option(count)


class LocalTarget(StartedTarget):
    """Serves an application in a child process for as long as the context lasts."""

    def __init__(self, spec: TargetSpec, context: TargetContext) -> None:
        options = read_options(spec, LocalOptions)
        super().__init__(spec, context, options)
        self._folder = spec.argument if spec.argument and is_path(spec.argument) else None
        app = spec.argument if self._folder is None else None
        if options.app and app:
            raise GrammarError("target local: the app is given twice; write local:module:app or app=module:app")
        self.options = replace(options, app=options.app or app)
        check_options("local", self.options)

    def application(self) -> ServedApplication:
        """Return what is served, before it is started.

        Raises:
            TargetError: there is no such folder, or no `openenv.yaml` that names an app.
        """
        root = self.context.root if self._folder is None else self._find_folder(Path(self._folder).expanduser())
        return ServedApplication(
            self.options,
            self.context if root == self.context.root else replace(self.context, root=root, searched=()),
            target=self.spec,
            host=self.options.host,
            port=self.options.port,
            log_path=self.context.log_path,
        )

    def _find_folder(self, path: Path) -> Path:
        bases = (Path.cwd(), self.context.base)
        folder = next((base / path for base in bases if (base / path).is_dir()), None)
        if folder is None:
            searched = "" if path.is_absolute() else f" from {' or '.join(map(str, dict.fromkeys(bases)))}"
            raise TargetError(f"target local: there is no folder {self._folder!r}{searched} to serve")
        return folder.resolve()

    def describe(self) -> list[DescriptionPart]:
        """Return what would be started; see `StartedTarget`."""
        return [self.application().describe()]

    def start(self, stack: ExitStack) -> Endpoint:
        """Start the server and return once it has answered a session."""
        served = self.application()
        began = time.monotonic()
        stack.enter_context(served)
        endpoint = self.endpoint(
            [served.url],
            f"local-{self.options.server}",
            served.process,
            cores=usable_cores(),
            hosts=1,
            limits=served.limits,
            session_settings=served.session_settings,
            process_reader=served.process.processes,
            notes=served.application.notes,
            backlog=largest_backlog(),
        )
        late_notes = served.wait(endpoint.headers)
        return replace(endpoint, startup_s=time.monotonic() - began, notes=(*endpoint.notes, *late_notes))
