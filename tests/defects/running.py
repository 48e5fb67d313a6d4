"""The server on a free port: in a thread of this process, or in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from .app import create_app

TESTS = Path(__file__).resolve().parents[1]
_UP_S = 60.0


def configuration(defect: str, limit: int, certificate: Path | None = None) -> uvicorn.Config:
    """How the server runs under uvicorn in a process of the tests: it says nothing, and is gone within a second."""
    return uvicorn.Config(
        create_app(defect, limit),
        ws="websockets-sansio",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
        ssl_certfile=certificate,
        ssl_keyfile=certificate,
    )


@contextmanager
def in_thread(defect: str = "none", limit: int = 16, certificate: Path | None = None) -> Iterator[str]:
    """The server under uvicorn, with a `certificate` over TLS; yields its `host:port`."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listener:
        server = uvicorn.Server(configuration(defect, limit, certificate))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(_UP_S)
            assert not thread.is_alive()


@contextmanager
def in_process(defect: str = "none", limit: int = 16, server: str = "uvicorn") -> Iterator[tuple[int, str]]:
    """The server under uvicorn or hypercorn once it answers; yields its process id and its `host:port`."""
    environ = {**os.environ, "DEFECT": defect, "MAX_CONCURRENT_ENVS": str(limit), "PYTHONPATH": str(TESTS)}
    with tempfile.TemporaryFile() as log:
        with socket.create_server(("127.0.0.1", 0), backlog=200) as listener:
            host, port = listener.getsockname()
            process = subprocess.Popen(
                [sys.executable, "-m", server, "defects.app:app", *_OPTIONS[server](listener.fileno())],
                env=environ,
                pass_fds=[listener.fileno()],
                stdout=log,
                stderr=log,
            )
        try:
            _wait_until_up(host, port, process)
            yield process.pid, f"{host}:{port}"
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


_OPTIONS: dict[str, Callable[[int], list[str]]] = {
    "uvicorn": lambda fd: ["--fd", str(fd), "--ws", "websockets-sansio", "--log-level", "warning"],
    "hypercorn": lambda fd: ["--bind", f"fd://{fd}", "--workers", "0"],
}


def _wait_until_up(host: str, port: int, process: subprocess.Popen[bytes]) -> None:
    """Raises TimeoutError where the server has ended, or says nothing within a minute."""
    deadline = time.monotonic() + _UP_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection((host, port), timeout=_UP_S) as probe:
                probe.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                if probe.recv(1):
                    return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(f"no server at {host}:{port}")
