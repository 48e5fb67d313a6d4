"""An HTTP proxy that opens tunnels and does nothing else, in a thread: what it was asked for, and what it refuses."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class ConnectProxy:
    """`port` of 127.0.0.1 it listens on; `heads` are the requests so far; without `authorization` it answers 407."""

    port: int
    authorization: str | None = None
    leads_to: int | None = None
    """The port every tunnel ends at, whatever was asked for; None: at what was asked for."""
    heads: list[str] = field(default_factory=list)

    @property
    def targets(self) -> set[str]:
        """What tunnels were asked to."""
        return {head.split(" ", 2)[1] for head in self.heads}

    def serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(1)
            self.heads.append(head.decode())
            method, target, _ = self.heads[-1].split(" ", 2)
            if method != "CONNECT":
                client.sendall(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
                return
            if self.authorization and f"Proxy-Authorization: {self.authorization}\r\n" not in self.heads[-1]:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            host, _, port = target.rpartition(":")
            address = ("127.0.0.1", self.leads_to) if self.leads_to else (host, int(port))
            with socket.create_connection(address) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n")
                back = threading.Thread(target=_copy, args=(server, client), daemon=True)
                back.start()
                _copy(client, server)
                back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def connect_proxy(*, authorization: str | None = None, leads_to: int | None = None) -> Iterator[ConnectProxy]:
    """The proxy, on a free port while the block runs."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        proxy = ConnectProxy(listener.getsockname()[1], authorization, leads_to)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=proxy.serve, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield proxy
        finally:
            # Closing alone would not wake the thread that accepts.
            listener.shutdown(socket.SHUT_RDWR)
