"""TLS over bytes: the socket stays its owner's, and so do arrival times and non-blocking reads."""

from __future__ import annotations

import ssl

_READ = 1024 * 1024


class NotTlsError(ssl.SSLError):
    """The server answered in plain HTTP."""


class TlsStream:
    """TLS over bytes: the socket stays ours, so that arrival times and non-blocking reads do too."""

    __slots__ = ("_incoming", "_outgoing", "_pending", "_ready", "_ssl", "ended")

    def __init__(self, context: ssl.SSLContext, server_name: str | None) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self._ready = False
        self._pending = b""
        self.ended = False
        """Whether the server has said that it will send nothing more."""
        self._shake()

    def encrypt(self, data: bytes) -> None:
        """Take bytes to send: they wait for the TLS handshake, and are dropped once the server has ended."""
        if self.ended:
            return
        if self._ready:
            self._ssl.write(data)
        else:
            self._pending += data

    def outgoing(self) -> bytes:
        """Return what must be written to the socket now."""
        return self._outgoing.read()

    def decrypt(self, data: bytes) -> bytes:
        """Take what was read from the socket and return what it says.

        Raises:
            ssl.SSLError: the handshake failed or the stream is damaged.
        """
        if not self._ready and data.startswith(b"HTTP/"):
            raise NotTlsError
        self._incoming.write(data)
        if not self._ready:
            self._shake()
            if not self._ready:
                return b""
        parts: list[bytes] = []
        try:
            while part := self._ssl.read(_READ):
                parts.append(part)
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        return b"".join(parts)

    def _shake(self) -> None:
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            return
        self._ready = True
        if self._pending:
            self._ssl.write(self._pending)
            self._pending = b""


def tls_words(error: ssl.SSLError) -> str:
    """Say in a few words what went wrong."""
    if isinstance(error, NotTlsError):
        return "the server speaks plain HTTP where TLS was asked: write http:// or ws://"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS certificate not accepted: {error.verify_message}"
    return f"TLS failed: {(error.reason or str(error)).replace('_', ' ').lower()}"
