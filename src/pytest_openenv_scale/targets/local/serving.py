"""Finds the ASGI application `module:app` and runs it in hypercorn or uvicorn, set up for many sessions at once."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import multiprocessing
import os
import re
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from logging import LogRecord
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pytest_openenv_scale.core import own_process
from pytest_openenv_scale.core.own_process import standard_library_first
from pytest_openenv_scale.targets.common import parent_death
from pytest_openenv_scale.targets.common.application import package_of

SERVERS = ("hypercorn", "uvicorn")
_APP_VARIABLE = "OPENENV_SCALE_APP"
PATH_VARIABLE = "OPENENV_SCALE_PYTHONPATH"
"""What PYTHONPATH becomes when the application is loaded. At the start of a process Python looks there before it looks
into its own library, and what runs until the application is loaded is none of the user's."""

_APP_FAILED_CODE = 3
"""The exit code of a worker whose application cannot be served; uvicorn's supervisor gives up on it too."""

_IDLE_S = 600
"""Seconds an accepted connection may wait for its request: thousands of handshakes queue for a while."""

_READY_LINES = {
    "hypercorn": re.compile(r"Running on "),
    "uvicorn": re.compile(r"Application startup complete|'lifespan' protocol appears unsupported"),
}
_SESSION_NOISE = re.compile(r'"WebSocket |^connection (open|closed)')


@dataclass(frozen=True)
class ServeSettings:
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


def serve(serving: ServeSettings, listener: socket.socket) -> int:
    """Serve on `listener` until SIGTERM or SIGINT and return an exit code.

    The application is imported in each worker; where that fails, the reason goes to stderr as one line
    that begins with `LOG_PREFIX`.
    """
    os.environ[_APP_VARIABLE] = serving.app
    run = _run_uvicorn if serving.server == "uvicorn" else _run_hypercorn
    return run(serving, listener)


def count_ready_workers(server: str, log: str) -> int:
    """Return how many workers have logged that they serve."""
    return len(_READY_LINES[server].findall(log))


def load() -> Any:
    """Return the application; both servers call this in each worker, which then dies with its parent."""
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        parent_death.end_with_parent(parent.pid)
    folders = os.environ.pop(PATH_VARIABLE, "")
    if folders:
        os.environ["PYTHONPATH"] = folders
        sys.path[:0] = folders.split(os.pathsep)
    sys.path[:] = standard_library_first(sys.path)  # Also where hypercorn has put the working directory in front.
    try:
        return load_app(os.environ[_APP_VARIABLE], Path.cwd())
    except AppError as error:
        if error.details:
            print(error.details, file=sys.stderr)
        print(f"{LOG_PREFIX}{error}", file=sys.stderr, flush=True)
        sys.exit(_APP_FAILED_CODE)


def _run_hypercorn(serving: ServeSettings, listener: socket.socket) -> int:
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
    code = run(config)
    # Where a worker was killed hypercorn returns 0, or the code of another one that it ended for that.
    return 128 + killed[0] if killed else code


def _notice_killed_workers() -> list[int]:
    """Log and list the signals that workers are killed by: hypercorn then ends and says nothing."""
    killed: list[int] = []
    reported_pids: set[int] = set()

    def on_child_exit(*_: object) -> None:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None or ended.si_pid in reported_pids or ended.si_status == signal.SIGTERM:
            return
        if ended.si_code in (os.CLD_KILLED, os.CLD_DUMPED):
            reported_pids.add(ended.si_pid)
            killed.append(ended.si_status)
            name = signal.Signals(ended.si_status).name
            print(f"{LOG_PREFIX}worker {ended.si_pid} was killed by {name}", file=sys.stderr, flush=True)

    if hasattr(os, "waitid"):
        signal.signal(signal.SIGCHLD, on_child_exit)
    return killed


def _run_uvicorn(serving: ServeSettings, listener: socket.socket) -> int:
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    config = uvicorn.Config(f"{__name__}:load", **_uvicorn_settings(serving))
    server = uvicorn.Server(config)
    if serving.workers == 1:
        server.run(sockets=[listener])
        return 0 if server.started else _APP_FAILED_CODE
    arguments: dict[str, Any] = {"config": config, "sockets": [listener]}
    if "target" in inspect.signature(Multiprocess).parameters:  # uvicorn < 0.42
        arguments["target"] = server.run
    Multiprocess(**arguments).run()
    return 0


def _uvicorn_settings(serving: ServeSettings) -> dict[str, Any]:
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
    parameters = inspect.signature(Config).parameters
    return {name: value for name, value in settings.items() if name in parameters}


class NoSessionNoise:
    """Drops uvicorn's three log lines per session: at thousands of sessions they are a cost of their own."""

    def filter(self, record: LogRecord) -> bool:
        """Keep every record that is not about a single WebSocket coming or going."""
        return not _SESSION_NOISE.search(str(record.msg))


LOG_PREFIX = "openenv-scale: "
"""How a line of ours begins in a server's log."""


class AppError(Exception):
    """The application cannot be served; one line, and `details` holds the user's part of a traceback."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


def load_app(name: str, folder: Path | None = None) -> Any:
    """Import `module:attribute` and return the ASGI application; a function without parameters is called.

    A module that imports relatively what is above it is imported once more, as part of the package that `folder` is.

    Raises:
        AppError: the module does not import, has no such attribute, or that is no ASGI application.
    """
    try:
        return _load(name)
    except _RelativeImportError:
        if folder is None:
            raise
        package, module_name = _add_package(folder), name.partition(":")[0]
        _forget(module_name.partition(".")[0])
        print(f"{module_name} imports relatively: it is imported as {package}.{module_name}", file=sys.stderr)
        return _load(f"{package}.{name}")


def _load(name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    app_object: Any = _import(name, module_name)
    for part in attribute.split("."):
        if not hasattr(app_object, part):
            raise AppError(
                f"{name}: {_describe_owner(app_object)} has no attribute {part!r}{_suggest_name(part, app_object)}"
            )
        app_object = getattr(app_object, part)
    if _is_factory(app_object):
        return _check_application(f"{name}()", _call_factory(name, app_object))
    return _check_application(name, app_object)


def _import(name: str, module_name: str) -> Any:
    try:
        return own_process.import_user_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise AppError(
                f"{name} does not import: there is no module {missing!r}; "
                f"write module:app as it is imported from {Path.cwd()}"
            ) from None
        raise AppError(
            f"{name} does not import: it needs the module {missing!r}, which is not installed here",
            _details(error),
        ) from None
    except (Exception, SystemExit) as error:
        raise _failure(f"{name} does not import", error) from None


class _RelativeImportError(AppError):
    """A module imports relatively what is above the package it was imported as."""


def _failure(what: str, error: BaseException) -> AppError:
    message = f"{what}: {_error_line(error)}"
    if isinstance(error, ImportError) and "attempted relative import" in str(error):
        remedy = "; write the module as its package is imported, such as local:my_env.server.app:app"
        return _RelativeImportError(f"{message}{remedy}", _details(error))
    return AppError(message, _details(error))


def _add_package(folder: Path) -> str:
    """Make a folder importable as a package and return its dotted name, one of ours where its own name is none."""
    base, name = package_of(folder)
    if name is not None:
        sys.path.append(str(base))
        return name
    name = re.sub(r"\W|^(?=\d)", "_", folder.name)
    module = sys.modules[name] = ModuleType(name)
    module.__path__, module.__package__ = [str(folder)], name
    init = folder / "__init__.py"
    try:
        if init.is_file():
            exec(compile(init.read_bytes(), init, "exec"), vars(module))
    except (Exception, SystemExit) as error:
        raise _failure(f"{init} does not import", error) from None
    return name


def _forget(top: str) -> None:
    for loaded in [module for module in sys.modules if module == top or module.startswith(f"{top}.")]:
        del sys.modules[loaded]


def _call_factory(name: str, factory: Callable[[], object]) -> object:
    try:
        return factory()
    except (Exception, SystemExit) as error:
        raise _failure(f"{name}() failed", error) from None


def _check_application(name: str, app: object) -> Any:
    if not callable(app):
        raise AppError(
            f"{name} is not an ASGI application but of type {type(app).__name__}; name the application object"
        )
    if inspect.iscoroutine(app):
        app.close()
    signature = _signature(app)
    if signature is not None and not _accepts(signature, 3):
        raise AppError(
            f"{name} does not take (scope, receive, send), so it is not an ASGI application; "
            "name the application object or a function without parameters that returns it"
        )
    return app


def _is_factory(candidate: object) -> bool:
    if not (inspect.isfunction(candidate) or inspect.ismethod(candidate) or inspect.isclass(candidate)):
        return False
    signature = _signature(candidate)
    return not inspect.iscoroutinefunction(candidate) and signature is not None and _accepts(signature, 0)


def _signature(function: Callable[..., object]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def _accepts(signature: inspect.Signature, arguments: int) -> bool:
    try:
        signature.bind(*[None] * arguments)
    except TypeError:
        return False
    return True


def _describe_owner(owner: object) -> str:
    file = getattr(owner, "__file__", None)
    return f"the module in {file}" if file else f"{type(owner).__name__} object"


def _suggest_name(wrong: str, owner: object) -> str:
    names = difflib.get_close_matches(wrong, [name for name in dir(owner) if name[0] != "_"], n=1)
    return f"; did you mean {names[0]!r}?" if names else ""


def _error_line(error: BaseException) -> str:
    words = (line.strip() for line in str(error).splitlines() if any(map(str.isalnum, line)))
    return ": ".join([type(error).__name__, *islice(words, 1)])


def _details(error: BaseException) -> str:
    """Format the traceback without the frames of this module and of the import machinery."""
    trace = error.__traceback__
    hidden = (__file__, own_process.__file__, importlib.__file__)
    while trace is not None and (
        trace.tb_frame.f_code.co_filename in hidden or trace.tb_frame.f_code.co_filename.startswith("<frozen importlib")
    ):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace, chain=True)).rstrip()
