"""One socket per worker on one address, also where the kernel spreads nothing over several."""

from __future__ import annotations

import socket

import pytest

from pytest_openenv_scale.server import serve


@pytest.mark.parametrize("spreads", [True, False])
def test_every_worker_has_a_socket_of_the_same_address(monkeypatch: pytest.MonkeyPatch, *, spreads: bool) -> None:
    if not spreads:
        monkeypatch.setattr(serve, "_SHARE_PORT", None)
    sockets = serve.listening_sockets("127.0.0.1", 0, 3, 16)
    address = sockets[0].getsockname()
    assert [sock.getsockname() for sock in sockets] == [address] * 3
    assert len({sock.fileno() for sock in sockets}) == 3
    for sock in sockets[:2] if not spreads else ():
        sock.close()
    with socket.create_connection(address, timeout=5):
        sockets[2].settimeout(0.0 if spreads else 5.0)
        if not spreads:
            sockets[2].accept()[0].close()
    for sock in sockets:
        sock.close()
