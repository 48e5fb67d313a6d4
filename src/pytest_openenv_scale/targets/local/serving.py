"""Runs an ASGI application `module:app` in hypercorn or uvicorn, set up for many sessions at once."""

from __future__ import annotations

import importlib.util
import inspect
import multiprocessing
import os
import re
import signal
import socket
import sys
from dataclasses import dataclass
from logging import LogRecord
from pathlib import Path
from typing import Any, Literal

from pytest_openenv_scale.core.own_process import standard_library_first

from . import tether
from .appload import SAYS, AppError, load_app

SERVERS = ("hypercorn", "uvicorn")
_APP_VARIABLE = "OPENENV_SCALE_APP"
PATH_VARIABLE = "OPENENV_SCALE_PYTHONPATH"
"""What PYTHONPATH becomes when the application is loaded. At the start of a process Python looks there before it looks
into its own library, and what runs until the application is loaded is none of the user's."""

_FAILED = 3
"""The exit code of a worker whose application cannot be served; uvicorn's supervisor gives up on it too."""

_IDLE_S = 600
"""Seconds an accepted connection may wait for its request: thousands of handshakes queue for a while."""

_UP = {
    "hypercorn": re.compile(r"Running on "),
    "uvicorn": re.compile(r"Application startup complete|'lifespan' protocol appears unsupported"),
}
_SESSION_NOISE = re.compile(r'"WebSocket |^connection (open|closed)')


@dataclass(frozen=True)
class Serving:
    """How an application is run: `backlog` connections may wait, `limit_concurrency` is uvicorn's own."""

    app: str
    server: Literal["hypercorn", "uvicorn"] = "hypercorn"
    workers: int = 1
    backlog: int = 2048
    limit_concurrency: int | None = None


def bind(host: str, port: int) -> socket.socket:
    """Bind a TCP socket that a server can listen on; port 0 takes a free one.

    Raises:
        OSError: the port is in use, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def largest_backlog() -> int:
    """Return how many connections the kernel lets wait at one socket."""
    try:
        return int(Path("/proc/sys/net/core/somaxconn").read_text())
    except (OSError, ValueError):
        return socket.SOMAXCONN


def serve(serving: Serving, listener: socket.socket) -> int:
    """Serve on `listener` until SIGTERM or SIGINT and return an exit code.

    The application is imported in each worker; where that fails, the reason goes to stderr as one line
    that begins with `SAYS`.
    """
    os.environ[_APP_VARIABLE] = serving.app
    run = _run_uvicorn if serving.server == "uvicorn" else _run_hypercorn
    return run(serving, listener)


def workers_up(server: str, log: str) -> int:
    """Return how many workers have said in the log that they serve."""
    return len(_UP[server].findall(log))


def load() -> Any:
    """Return the application; both servers call this in each worker, which then dies with its parent."""
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        tether.die_with(parent.pid)
    folders = os.environ.pop(PATH_VARIABLE, "")
    if folders:
        os.environ["PYTHONPATH"] = folders
        sys.path[:0] = folders.split(os.pathsep)
    sys.path[:] = standard_library_first(sys.path)  # Also where hypercorn has put the working directory in front.
    try:
        return load_app(os.environ[_APP_VARIABLE])
    except AppError as error:
        if error.details:
            print(error.details, file=sys.stderr)
        print(f"{SAYS}{error}", file=sys.stderr, flush=True)
        sys.exit(_FAILED)


def _run_hypercorn(serving: Serving, listener: socket.socket) -> int:
    from hypercorn.config import Config
    from hypercorn.run import run

    config = Config()
    config.application_path = f"asgi:{__name__}:load()"
    config.bind = [f"fd://{listener.fileno()}"]
    config.workers = 0 if serving.workers == 1 else serving.workers
    config.worker_class = "uvloop" if importlib.util.find_spec("uvloop") else "asyncio"
    config.backlog = serving.backlog
    config.keep_alive_timeout = _IDLE_S
    config.startup_timeout = _IDLE_S
    killed = _notice_killed_workers()
    return run(config) or (128 + killed[0] if killed else 0)


def _notice_killed_workers() -> list[int]:
    """Log and list the signals that workers are killed by: hypercorn then ends, says nothing and returns 0."""
    killed: list[int] = []
    seen: set[int] = set()

    def look(*_: object) -> None:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None or ended.si_pid in seen or ended.si_status == signal.SIGTERM:
            return
        if ended.si_code in (os.CLD_KILLED, os.CLD_DUMPED):
            seen.add(ended.si_pid)
            killed.append(ended.si_status)
            name = signal.Signals(ended.si_status).name
            print(f"{SAYS}worker {ended.si_pid} was killed by {name}", file=sys.stderr, flush=True)

    if hasattr(os, "waitid"):
        signal.signal(signal.SIGCHLD, look)
    return killed


def _run_uvicorn(serving: Serving, listener: socket.socket) -> int:
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    config = uvicorn.Config(f"{__name__}:load", **_uvicorn_settings(serving))
    server = uvicorn.Server(config)
    if serving.workers == 1:
        server.run(sockets=[listener])
        return 0 if server.started else _FAILED
    arguments: dict[str, Any] = {"config": config, "sockets": [listener]}
    if "target" in inspect.signature(Multiprocess).parameters:  # uvicorn < 0.42
        arguments["target"] = server.run
    Multiprocess(**arguments).run()
    return 0


def _uvicorn_settings(serving: Serving) -> dict[str, Any]:
    """Return the settings that this version of uvicorn knows; some came with 0.35 and 0.37."""
    from uvicorn.config import LOGGING_CONFIG, WS_PROTOCOLS, Config

    logging_config = dict(LOGGING_CONFIG)
    logging_config["filters"] = {"no_session_noise": {"()": f"{__name__}.NoSessionNoise"}}
    logging_config["loggers"] = logging_config["loggers"] | {
        "uvicorn.error": {"level": "INFO", "filters": ["no_session_noise"]}
    }
    settings: dict[str, Any] = {
        "factory": True,
        "workers": serving.workers,
        "backlog": serving.backlog,
        "limit_concurrency": serving.limit_concurrency,
        "ws": "websockets-sansio" if "websockets-sansio" in WS_PROTOCOLS else "websockets",
        "ws_per_message_deflate": False,
        "timeout_keep_alive": _IDLE_S,
        "timeout_worker_healthcheck": 120,
        "access_log": False,
        "log_config": logging_config,
        "use_colors": False,
    }
    known = inspect.signature(Config).parameters
    return {name: value for name, value in settings.items() if name in known}


class NoSessionNoise:
    """Drops uvicorn's three log lines per session: at thousands of sessions they are a cost of their own."""

    def filter(self, record: LogRecord) -> bool:
        """Keep every record that is not about a single WebSocket coming or going."""
        return not _SESSION_NOISE.search(str(record.msg))
