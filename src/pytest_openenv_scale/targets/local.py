"""`local[:module:app]`: an ASGI application in hypercorn or uvicorn on this machine."""

from __future__ import annotations

import errno
import importlib.util
import os
import socket
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from pytest_openenv_scale.core.endpoint import Endpoint, TargetError
from pytest_openenv_scale.core.grammar import GrammarError, TargetSpec, redact_target
from pytest_openenv_scale.server.settings import bracketed, usable_cores

from . import keys
from .appload import SAYS
from .context import TargetContext
from .launch import command
from .openenv_yaml import MANIFEST, app_of, is_app_name
from .process import ServerProcess
from .ready import START_S, wait_until_ready
from .sampling import listening_processes
from .serving import SERVERS, Serving, bind, largest_backlog, workers_up

BUILT_IN = "pytest_openenv_scale.server.app:app"
_KEYS = {
    "app": keys.text,
    "server": keys.one_of(*SERVERS),
    "workers": keys.count,
    "max_envs": keys.count,
    "port": keys.port,
    "host": keys.text,
    "label": keys.text,
    "cores": keys.count,
    "hardware": keys.text,
    "nofile": keys.count,
    "limit_concurrency": keys.count,
}
_MAX_ENVS = "MAX_CONCURRENT_ENVS"
_LEAST_BACKLOG = 2048
_WHOLE_LOG = 10_000
_WORKERS_S = 10.0
"""Seconds the other workers get once the first has answered a session."""


@dataclass(frozen=True)
class _Application:
    """What is served: `paths` go in front of PYTHONPATH."""

    name: str
    paths: tuple[Path, ...]
    notes: tuple[str, ...] = ()

    @property
    def built_in(self) -> bool:
        return self.name == BUILT_IN


class LocalTarget:
    """Serves an application in a child process for as long as the context lasts.

    Raises:
        GrammarError: the specification has an unknown key or a value that cannot be used.
    """

    def __init__(self, spec: TargetSpec, context: TargetContext) -> None:
        self.spec = redact_target(spec)
        self._given = keys.read_options(spec, _KEYS, env=True)
        self._context = context
        self._life = ExitStack()
        self._app = self._given.text("app") or spec.argument
        if self._given.text("app") and spec.argument:
            raise GrammarError("target local: the app is given twice; write local:module:app or app=module:app")
        if self._app is not None and not is_app_name(self._app):
            raise GrammarError(f"target local: {self._app!r} is not module:app; write for example local:server.app:app")
        if self._given.count("limit_concurrency") and self._server != "uvicorn":
            raise GrammarError("target local: limit_concurrency is uvicorn's; add server=uvicorn")

    def __enter__(self) -> Endpoint:
        """Start the server and return once it has answered a session; see `Target`."""
        with ExitStack() as life:
            endpoint = self._start(life)
            self._life = life.pop_all()
        return endpoint

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server and everything it started."""
        self._life.close()

    @property
    def _server(self) -> Any:
        return self._given.text("server") or "hypercorn"

    def _start(self, life: ExitStack) -> Endpoint:
        application = self._application()
        cores = usable_cores()
        workers = self._given.count("workers") or (cores if application.built_in else 1)
        backlog = max(self._context.largest_batch, _LEAST_BACKLOG)
        serving = Serving(application.name, self._server, workers, backlog, self._given.count("limit_concurrency"))
        if serving.server == "uvicorn":
            _require_uvicorn()
        host = self._given.text("host") or "127.0.0.1"
        began = time.monotonic()
        with _bound(host, self._given.count("port")) as listener:
            port = int(listener.getsockname()[1])
            environ = self._environ(application, host, port, workers)
            process = life.enter_context(
                ServerProcess(
                    command(serving, listener.fileno()),
                    env=environ,
                    cwd=self._context.root,
                    log_path=self._context.log_path,
                    nofile=self._given.count("nofile"),
                    pass_fds=[listener.fileno()],
                )
            )
        endpoint = Endpoint(
            urls=(f"http://{_reachable(host)}:{port}",),
            label=self._given.text("label") or f"local-{serving.server}",
            target=self.spec,
            cores=self._given.count("cores") or cores,
            hosts=1,
            limits=_limits(serving, environ, self._given.count("nofile")),
            headers=dict(self._context.headers),
            hardware=self._given.text("hardware"),
            notes=(*application.notes, *_backlog_notes(self._context.largest_batch)),
            sampler=process.sample,
            log_reader=process.log_tail,
            exit_reader=process.exit_status,
        )
        self._await(endpoint, process, application)
        late = _await_workers(serving, process)
        return replace(endpoint, startup_s=time.monotonic() - began, notes=(*endpoint.notes, *late))

    def _application(self) -> _Application:
        root = self._context.root
        named = app_of(root) if self._app is None or (root / MANIFEST).exists() else None
        if self._app is None and named is None:
            note = f"no {MANIFEST} in {root}: serving the built-in benchmark environment"
            return _Application(BUILT_IN, (), (note,))
        paths = (root, root.parent) if (root / MANIFEST).exists() else (root,)
        return _Application(self._app or named or BUILT_IN, paths)

    def _environ(self, application: _Application, host: str, port: int, workers: int) -> dict[str, str]:
        environ = dict(os.environ)
        paths = [str(path) for path in application.paths]
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*paths, environ.get("PYTHONPATH", "")]))
        environ["PYTHONUNBUFFERED"] = "1"
        if application.built_in:
            environ |= {"HOST": host, "PORT": str(port), "WORKERS": str(workers)}
        max_envs = self._given.count("max_envs")
        if max_envs is not None:
            environ[_MAX_ENVS] = str(max_envs)
        return {**environ, **self._given.env}

    def _await(self, endpoint: Endpoint, process: ServerProcess, application: _Application) -> None:
        def still_alive() -> str | None:
            said = [line for line in process.log_tail(_WHOLE_LOG).splitlines() if line.startswith(SAYS)]
            status = process.exit_status()
            if said:
                return f"target {self.spec}: {said[-1].removeprefix(SAYS)}"
            return f"target {self.spec}: the server {status} before it answered a session" if status else None

        try:
            wait_until_ready(endpoint.urls, endpoint.headers, START_S, still_alive, modes=self._context.modes)
        except TargetError as error:
            message = str(error)
            if message.startswith(endpoint.urls[0]):
                message = f"target {self.spec}: {application.name} at {message}"
            raise TargetError(process.with_log(message)) from None


@contextmanager
def _bound(host: str, port: int | None) -> Generator[socket.socket]:
    """Yield a socket bound to `host` that the server inherits, so that a free port stays ours."""
    try:
        listener = bind(host, port or 0)
    except OSError as error:
        where = f"{bracketed(host)}:{port}" if port else host
        if error.errno == errno.EADDRINUSE:
            pids = listening_processes(port or 0)
            by = f" by process {pids[0]}" if pids else ""
            raise TargetError(
                f"target local: port {port} of {host} is in use{by}; "
                "write another port=, or leave it out for a free one"
            ) from None
        raise TargetError(f"target local: cannot listen on {where}: {error.strerror}") from None
    with listener:
        yield listener


def _await_workers(serving: Serving, process: ServerProcess) -> tuple[str, ...]:
    """Wait until every worker has said that it serves: the first one to answer is not yet all of them."""
    until = time.monotonic() + _WORKERS_S
    while (up := workers_up(serving.server, process.log_tail(_WHOLE_LOG))) < serving.workers:
        if process.exit_status() is not None or time.monotonic() >= until:
            return (f"{up} of {serving.workers} workers said that they serve",)
        time.sleep(0.05)
    return ()


def _reachable(host: str) -> str:
    return bracketed({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host))


def _limits(serving: Serving, environ: dict[str, str], nofile: int | None) -> dict[str, str | int]:
    limits: dict[str, str | int] = {"server": serving.server, "workers": serving.workers}
    if environ.get(_MAX_ENVS, "").isdecimal():
        limits["max_envs"] = int(environ[_MAX_ENVS])
    if serving.limit_concurrency is not None:
        limits["limit_concurrency"] = serving.limit_concurrency
    if nofile is not None:
        limits["nofile"] = nofile
    return limits


def _backlog_notes(largest_batch: int) -> tuple[str, ...]:
    kernel = largest_backlog()
    if largest_batch <= kernel:
        return ()
    return (
        f"the kernel lets {kernel} connections wait, the largest batch is {largest_batch}: "
        f"sysctl net.core.somaxconn={largest_batch}",
    )


def _require_uvicorn() -> None:
    for module in ("uvicorn", "websockets"):
        if importlib.util.find_spec(module) is None:
            raise TargetError(
                f"target local: server=uvicorn needs {module}: pip install 'pytest-openenv-scale[uvicorn]'"
            )
