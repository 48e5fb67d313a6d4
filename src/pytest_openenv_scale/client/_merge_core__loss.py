"""Why a connection ended, in the words of a row."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from functools import lru_cache

CLIENT_ERRNOS = frozenset(
    (
        *(errno.EMFILE, errno.ENFILE),
        *(errno.EADDRNOTAVAIL, errno.EADDRINUSE),
        *(errno.ENOBUFS, errno.ENOMEM),
        *(errno.EACCES, errno.EPERM),
        *(errno.ENETDOWN, errno.EAFNOSUPPORT),
    )
)
"""Errors of this machine, not of the server: no descriptors, no ports, no memory, not allowed, no network."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Why a connection ended: `kind` is a row's `error_type`, or `closed` after a clean close handshake."""

    kind: str
    code: str | None = None
    message: str | None = None


@lru_cache(maxsize=16)
def clean_close(code: int, reason: str) -> Loss:
    """Return the loss of a connection whose close handshake was completed; nearly every session ends alike."""
    return Loss("closed", str(code), reason or None)


def loss_of(error: OSError, *, established: bool = False) -> Loss:
    """Put an error of the socket into the words of a row."""
    code = errno.errorcode.get(error.errno or 0, str(error.errno))
    text = error.strerror or str(error)
    if error.errno in CLIENT_ERRNOS:
        return Loss("client_limit", code, text)
    if error.errno == errno.ECONNREFUSED:
        return Loss("refused", code, text)
    if error.errno in (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH):
        return Loss("timeout" if error.errno == errno.ETIMEDOUT else "refused", code, text)
    if error.errno in (errno.ECONNRESET, errno.EPIPE):
        return Loss("connection_reset", code, text if established else "reset before the upgrade was answered")
    return Loss("protocol", code, text)
