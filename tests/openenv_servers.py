"""Real OpenEnv servers: an environment of `openenv_apps` under uvicorn, in the virtual environment of one package."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from openenv_venvs import PACKAGES, openenv_python
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.targets.common.readiness import wait_until_ready
from pytest_openenv_scale.targets.common.supervisor import ServerProcess
from pytest_openenv_scale.targets.local.serving import count_ready_workers

APPS = Path(__file__).resolve().parent / "openenv_apps"

# Importing openenv takes 7 s of CPU from 0.2.3 on, in every worker, on a machine that may be busy with others.
START_S = 150.0
_PAUSE_S = 0.05
_WHOLE_LOG = 10_000
_ADDRESS = re.compile(r"Uvicorn running on (http://127\.0\.0\.1:\d+)")
# What the tests' own environment says to Python, to OpenEnv and to uvicorn is not meant for these servers.
_NOT_INHERITED = re.compile(r"PYTHON(PATH|HOME)|MAX_CONCURRENT_ENVS|ENABLE_WEB_INTERFACE|WEB_CONCURRENCY|UVICORN_.*")


@dataclass(frozen=True)
class OpenEnvServer:
    """What is served: `app` of `openenv_apps`, by which package, in how many workers of `max_envs` sessions each."""

    id: str
    package: str
    app: str
    workers: int = 1
    max_envs: int = 4

    @property
    def environment(self) -> str:
        """The module that holds the environment: echo, benchmark or seeded."""
        return self.app.partition(":")[0]


@dataclass(frozen=True)
class RunningServer:
    """A server that has answered a session; `pid` leads its session and process group."""

    url: str
    pid: int
    log_path: Path


_0_10, _0_3, _0_2_3, _0_2_0 = PACKAGES

SERVERS = (
    OpenEnvServer("openenv-0.10-echo-sync-1w", _0_10, "echo:app"),
    OpenEnvServer("openenv-0.10-benchmark-async-1w", _0_10, "benchmark:async_app"),
    OpenEnvServer("openenv-0.10-seeded-sync-1w", _0_10, "seeded:app"),
    OpenEnvServer("openenv-0.10-benchmark-sync-2w", _0_10, "benchmark:app", workers=2),
    OpenEnvServer("core-0.3.0-echo-async-1w", _0_3, "echo:async_app"),
    OpenEnvServer("core-0.3.0-benchmark-sync-1w", _0_3, "benchmark:app"),
    OpenEnvServer("core-0.2.3-seeded-async-1w", _0_2_3, "seeded:async_app"),
    OpenEnvServer("core-0.2.3-benchmark-sync-1w", _0_2_3, "benchmark:app"),
    OpenEnvServer("core-0.2.0-echo-sync-1w", _0_2_0, "echo:app"),
    OpenEnvServer("core-0.2.0-benchmark-async-2w", _0_2_0, "benchmark:async_app", workers=2),
)
"""Every version, environment and number of workers, synchronous and asynchronous, but not all of their products."""


@contextmanager
def openenv_server(server: OpenEnvServer, folder: Path, *, start_s: float = START_S) -> Iterator[RunningServer]:
    """Serve on a free port of 127.0.0.1 once every worker is up and a session was answered; its log is in `folder`.

    Skips the test where the package cannot be installed. Raises TargetError with the log's end where it does not start.
    """
    python = openenv_python(server.package)
    log_path = folder / f"{server.id}.log"
    # SIGTERM should this process be killed, so that a supervisor takes its workers with it.
    process = ServerProcess(
        _command(python, server), env=_environ(server), cwd=APPS, log_path=log_path, orphan_signal=signal.SIGTERM
    )
    with process:
        url = _wait(server, process, time.monotonic() + start_s)
        yield RunningServer(url, process.pid, log_path)


def _command(python: Path, server: OpenEnvServer) -> list[str]:
    command = [str(python), "-m", "uvicorn", server.app, "--host", "127.0.0.1", "--port", "0"]
    command += ["--workers", str(server.workers)]
    if _knows_health_checks(python):
        command += ["--timeout-worker-healthcheck", "120"]
    return command


def _knows_health_checks(python: Path) -> bool:
    """Say whether this uvicorn (from 0.37 on) lets its supervisor wait longer than 5 s for a busy worker."""
    (main,) = python.parents[1].glob("lib/python*/site-packages/uvicorn/main.py")
    return "--timeout-worker-healthcheck" in main.read_text()


def _environ(server: OpenEnvServer) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not _NOT_INHERITED.fullmatch(name)}
    return {**inherited, "MAX_CONCURRENT_ENVS": str(server.max_envs), "PYTHONUNBUFFERED": "1"}


def _wait(server: OpenEnvServer, process: ServerProcess, deadline: float) -> str:
    """Return the server's URL once it has said it, every worker serves and one of them has answered a session."""
    address = None
    while address is None or count_ready_workers("uvicorn", process.log_tail(_WHOLE_LOG)) < server.workers:
        address = _ADDRESS.search(process.log_tail(_WHOLE_LOG))
        if status := process.exit_status():
            raise TargetError(process.with_log(f"{server.id}: the server {status} before it answered a session"))
        if time.monotonic() >= deadline:
            raise TargetError(process.with_log(f"{server.id}: not all of {server.workers} workers came up in time"))
        time.sleep(_PAUSE_S)
    try:
        wait_until_ready((address[1],), {}, max(deadline - time.monotonic(), 1.0), process.exit_status)
    except TargetError as error:
        raise TargetError(process.with_log(f"{server.id}: {error}")) from None
    return address[1]
