"""Where a Space of the stand-in answers: a real server of ours, and in front of it what a platform does."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from server_process import server_command, server_environ

from .server import TOKEN

_RESET = struct.pack("ii", 1, 0)
_ASLEEP = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 24\r\nConnection: close\r\n\r\nThis Space is not awake."
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_REFUSALS = {
    "429": b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 30\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "503": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
}


class Server:
    """The container of a Space: the benchmark environment as a process of its own."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.address: tuple[str, int] | None = None
        self.log: list[str] = []
        command = server_command("--port", 0)
        environ = server_environ(**{"WORKERS": "1", **variables})
        self._process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.log.append(line)
            if (match := re.search(r"listening on http://([\d.]+):(\d+) ", line)) is not None:
                self.address = (match[1], int(match[2]))

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(5)
        assert self._process.stderr is not None
        self._process.stderr.close()


@dataclass
class Rules:
    """How the platform treats clients: at most `cap` connections, and what becomes of the next."""

    cap: int | None = None
    refusal: str = "reset"
    http: bool = True
    private: bool = False


class Front:
    """One address that stays, whatever runs behind it."""

    def __init__(self, rules: Rules, wake: threading.Event) -> None:
        self.rules = rules
        self.wake = wake
        self.backend: tuple[str, int] | None = None
        self.seen: list[bytes] = []
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        host, port = self._listener.getsockname()
        return f"http://{host}:{port}"

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """End every connection, as a container that stops does."""
        with self._lock:
            for client in self._open:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                full = self.rules.cap is not None and len(self._open) >= self.rules.cap
                if not full:
                    self._open.add(client)
            if full and self.rules.refusal == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                client.close()
            else:
                threading.Thread(target=self._serve, args=(client, full), daemon=True).start()

    def _serve(self, client: socket.socket, full: bool) -> None:
        try:
            with client, contextlib.suppress(OSError):
                head = _head(client)
                self.seen.append(head)
                refusal = self._refusal(head, full)
                if refusal is not None:
                    client.sendall(refusal)
                elif self.backend is not None:
                    self._relay(client, head)
        finally:
            with self._lock:
                self._open.discard(client)

    def _refusal(self, head: bytes, full: bool) -> bytes | None:
        if full:
            return _REFUSALS[self.rules.refusal]
        if self.rules.private and f"authorization: bearer {TOKEN}".lower().encode() not in head.lower():
            return _NOT_FOUND
        if self.backend is None:
            self.wake.set()
            return _ASLEEP
        if not self.rules.http and head.startswith(b"POST /"):
            return _NOT_FOUND
        return None

    def _relay(self, client: socket.socket, head: bytes) -> None:
        assert self.backend is not None
        with socket.create_connection(self.backend) as server:
            server.sendall(head)
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            _pump(client, server)
            back.join()


def _head(client: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data and (more := client.recv(65536)):
        data += more
    return data


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
