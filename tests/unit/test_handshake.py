"""The upgrade request of a client, and what the answer to it means."""

from __future__ import annotations

import socket
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_openenv_scale.client import handshake
from pytest_openenv_scale.client.handshake import Loss, RouteError, new_key, prepare_route, read_upgrade_response
from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.parsing import parse_header
from pytest_openenv_scale.core.target_spec import read_redirect
from scripted_server import accepted

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPTED = accepted(b"GET / HTTP/1.1\r\nSec-WebSocket-Key: " + KEY)


def read(data: bytes, *, ended: bool = False) -> bytes | Loss | None:
    return read_upgrade_response(data, KEY, "https://h/prefix/ws", ended=ended)


def lines(route: handshake.Route) -> list[str]:
    return route.head.decode().split("\r\n")


# The request


def test_the_request_asks_for_ws_below_the_base_url():
    assert lines(prepare_route("http://127.0.0.1:8000"))[0] == "GET /ws HTTP/1.1"
    assert lines(prepare_route("ws://127.0.0.1:8000/"))[0] == "GET /ws HTTP/1.1"
    assert lines(prepare_route("http://127.0.0.1/some/prefix/"))[0] == "GET /some/prefix/ws HTTP/1.1"
    assert lines(prepare_route("http://127.0.0.1/some/ws"))[0] == "GET /some/ws HTTP/1.1"


def test_the_request_is_a_websocket_handshake_that_offers_no_extension():
    request = lines(prepare_route("http://127.0.0.1:8000", {"Authorization": "Bearer t"}))
    assert request == [
        "GET /ws HTTP/1.1",
        "Host: 127.0.0.1:8000",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Authorization: Bearer t",
        "Sec-WebSocket-Key: ",
    ]


@pytest.mark.parametrize(
    ("url", "host", "address"),
    [
        ("http://127.0.0.1", "127.0.0.1", ("127.0.0.1", 80)),
        ("http://127.0.0.1:80", "127.0.0.1", ("127.0.0.1", 80)),
        ("https://127.0.0.1", "127.0.0.1", ("127.0.0.1", 443)),
        ("https://127.0.0.1:80", "127.0.0.1:80", ("127.0.0.1", 80)),
        ("http://[::1]:9000/x", "[::1]:9000", ("::1", 9000, 0, 0)),
    ],
)
def test_host_and_address_follow_the_url(url, host, address):
    route = prepare_route(url)
    assert lines(route)[1] == f"Host: {host}"
    assert route.address == address
    assert route.family == (socket.AF_INET6 if ":" in address[0] else socket.AF_INET)


def test_only_secure_urls_speak_tls_and_name_the_server():
    plain, secure = prepare_route("ws://127.0.0.1"), prepare_route("wss://127.0.0.1")
    assert (plain.tls, plain.server_name) == (None, None)
    assert secure.tls is not None
    assert secure.server_name == "127.0.0.1"


def test_userinfo_of_the_url_is_never_sent_or_shown():
    route = prepare_route("http://user:hunter2@127.0.0.1:8000/x")
    assert b"hunter2" not in route.head
    assert b"user" not in route.head
    assert "hunter2" not in repr(route)
    with pytest.raises(RouteError) as caught:
        prepare_route("ftp://user:hunter2@127.0.0.1/x")
    assert "hunter2" not in str(caught.value)


def test_a_path_is_percent_encoded_so_that_it_stays_one_request_line():
    assert lines(prepare_route("http://127.0.0.1/a b/ä%20"))[0] == "GET /a%20b/%C3%A4%20/ws HTTP/1.1"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-A", "1\r\nX-B: 2"),
        ("X-A", "1\n2"),
        ("X-A", "1\r"),
        ("X-A", "nul\0"),
        ("X-A\r\nX-B", "1"),
        ("X A", "1"),
        ("", "1"),
        ("X-Ä", "1"),
    ],
)
def test_a_header_that_would_leave_its_line_is_refused(golden, name, value):
    with pytest.raises(RouteError) as caught:
        prepare_route("http://127.0.0.1", {name: value})
    golden(caught.value)
    assert "\n" not in str(caught.value)
    if value != "1":
        assert value not in str(caught.value)


@pytest.mark.parametrize("text", ["X-A: 1\r\nX-B: 2", "X-A: 1\n", "X-A: a\x00"])
def test_such_a_header_is_refused_where_it_is_written(text):
    with pytest.raises(GrammarError, match="must be one line"):
        parse_header(text.strip(" ") if not text.endswith("\n") else text + "x")


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://127.0.0.1", "http://", "http:///x", "", "http://h:port"])
def test_what_is_no_url_of_a_server_is_refused_in_one_line(url):
    with pytest.raises(RouteError, match=r"^not a"):
        prepare_route(url)


def test_a_host_that_does_not_resolve_is_named(golden, monkeypatch):
    def nobody_knows(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody_knows)
    with pytest.raises(RouteError) as caught:
        prepare_route("http://no-such-host.invalid:8000")
    golden(caught.value)


def test_of_a_host_with_two_families_the_address_that_listens_is_taken(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        nobody = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0))
        address = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: [nobody, address])
        route = prepare_route(f"http://localhost:{port}")
    assert (route.family, route.address) == (socket.AF_INET, ("127.0.0.1", port))


def test_of_a_host_with_two_families_where_nothing_listens_the_first_is_taken(monkeypatch):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        first = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
        other = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: [first, other])
        assert prepare_route(f"http://localhost:{port}").address == ("127.0.0.1", port)


def test_every_handshake_has_a_key_of_its_own():
    keys = {new_key() for _ in range(1000)}
    assert len(keys) == 1000
    assert all(len(key) == 24 for key in keys)


# The answer


def test_an_acceptance_leaves_the_bytes_that_follow_it():
    assert read(ACCEPTED) == b""
    assert read(ACCEPTED + b"\x81\x02hi") == b"\x81\x02hi"


REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nServer: envoy\r\nContent-Length: 9\r\n\r\nno  room\n"


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        (ACCEPTED, b""),
        (REFUSAL, Loss("handshake_status", "503", "HTTP 503 Service Unavailable from envoy: no room")),
    ],
)
@given(data=st.data())
def test_an_answer_means_the_same_wherever_it_is_split(answer, meaning, data):
    cuts = data.draw(st.sets(st.integers(1, len(answer) - 1)))
    places = [0, *sorted(cuts), len(answer)]
    results = [read(answer[:end]) for _, end in pairwise(places)]
    assert results == [None] * (len(places) - 2) + [meaning]


@pytest.mark.parametrize(
    "change",
    [
        (b"Sec-WebSocket-Accept: ", b"Sec-WebSocket-Accept: x"),
        (b"Sec-WebSocket-Accept: ", b"Nothing: "),
        (b"Upgrade: websocket", b"Upgrade: h2c"),
        (b"Connection: Upgrade", b"Connection: close"),
        (b"Upgrade: websocket", b"Upgrade: websocket\r\nSec-WebSocket-Extensions: permessage-deflate"),
        (b"Upgrade: websocket", b"Upgrade: websocket\r\nSec-WebSocket-Protocol: mcp"),
        (b"Upgrade: websocket", b"Upgrade: websocket\r\nUpgrade: h2c"),
        (b"Connection: Upgrade", b"Connection: no-upgrade"),
    ],
)
def test_an_acceptance_that_is_none_is_a_protocol_failure(golden, change):
    answer = ACCEPTED.replace(*change, 1)
    assert answer != ACCEPTED
    loss = read(answer)
    assert isinstance(loss, Loss)
    assert (loss.kind, loss.code) == ("protocol", "handshake")
    golden(loss.message or "")


def test_case_and_spaces_of_the_fields_do_not_matter():
    answer = ACCEPTED.replace(b"Upgrade: websocket", b"UPGRADE:WebSocket").replace(
        b"Connection: Upgrade", b"connection:  keep-alive, Upgrade "
    )
    assert read(answer) == b""


@pytest.mark.parametrize(
    "change",
    [
        (b"Connection: Upgrade", b"Connection: Upgrade\r\nConnection: keep-alive"),
        (b"Connection: Upgrade", b"Connection: keep-alive\r\nX: y\r\nconnection: upgrade"),
        (b"Connection: Upgrade", b"Connection: keep-alive, , Upgrade"),
        (b" Switching Protocols", b" "),
        (b" Switching Protocols", b""),
    ],
)
def test_lines_of_one_name_are_one_list_and_a_reason_phrase_may_be_missing(change):
    answer = ACCEPTED.replace(*change, 1)
    assert answer != ACCEPTED
    assert read(answer) == b""


def test_a_length_sent_twice_is_one_length():
    loss = read(b"HTTP/1.1 403 No\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nwhy")
    assert loss == Loss("handshake_status", "403", "HTTP 403 No: why")
    assert read(b"HTTP/1.1 403 No\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nw") is None


@pytest.mark.parametrize(
    "data", [b"SSH-2.0-OpenSSH_9.2\r\n", b"+OK\r\n", b"\0", b"HTTP/2 200\r\n\r\n", b"HTTP/1.1\r\n\r\n"]
)
def test_an_answer_that_is_not_http_is_a_protocol_failure_with_its_first_bytes(data):
    loss = read(data)
    assert isinstance(loss, Loss)
    assert (loss.kind, loss.code) == ("protocol", "handshake")
    assert repr(data[:40]) in (loss.message or "")


def test_a_tls_alert_says_what_to_write_instead():
    loss = read(b"\x15\x03\x03\x00\x02\x02\x46")
    assert isinstance(loss, Loss)
    assert loss.kind == "protocol"
    assert "https://" in (loss.message or "")


def test_a_head_without_end_is_given_up():
    assert read(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 60_000) is None
    loss = read(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000)
    assert isinstance(loss, Loss)
    assert loss.kind == "protocol"


@pytest.mark.parametrize("data", [b"", b"HTT", b"HTTP/1.1 101 Switching Protocols\r\nUpgr"])
def test_an_end_before_the_answer_is_whole_is_closed_early(data):
    assert read(data) is None
    loss = read(data, ended=True)
    assert isinstance(loss, Loss)
    assert loss.kind == "closed_early"


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 502, 503])
@pytest.mark.parametrize("body", [b"", b"the reason"])
@pytest.mark.parametrize("framing", ["length", "chunked", "closed", "kept open"])
def test_a_refusal_keeps_status_and_reason_however_its_body_is_sent(status, body, framing):
    head = f"HTTP/1.1 {status} Because\r\n"
    if framing == "length":
        answer = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    elif framing == "chunked":
        chunks = b"".join(b"1\r\n" + bytes([byte]) + b"\r\n" for byte in body)
        answer = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n"
    elif framing == "closed":
        answer = f"{head}Connection: close\r\n\r\n".encode() + body
    else:
        answer = f"{head}\r\n".encode() + body
    if framing == "closed":
        assert read(answer) is None
    loss = read(answer, ended=framing == "closed")
    assert loss == Loss("handshake_status", str(status), f"HTTP {status} Because" + (": the reason" if body else ""))


def test_a_redirect_says_where_to(golden):
    loss = read(b"HTTP/1.1 301 Moved Permanently\r\nLocation: https://other/ws\r\nContent-Length: 0\r\n\r\n")
    assert (loss.kind, loss.code) == ("handshake_status", "301")
    golden(loss.message)


@pytest.mark.parametrize(
    ("location", "url", "advice"),
    [
        ("https://other/env/ws", "https://other/env", "write that URL"),
        ("https://u:hush@other/env/reset?token=hush", "https://other/env", "write that URL"),
        ("//other/ws", "https://other", "write that URL"),
        ("/v2/ws/", "https://h/v2", "write that URL"),
        ("ws", "https://h/prefix/ws", "which is where it was asked"),
        ("/prefix/ws/", "https://h/prefix/ws/", "only the trailing slash differs"),
        ("https://h/prefix/ws/?a=b", "https://h/prefix/ws/?a=***", "only the trailing slash differs"),
        ("/login?next=%2Fws", "https://h/login?next=***", "no endpoint of OpenEnv"),
        ("http://[broken/ws", "'http://[broken/ws'", "which is no URL"),
    ],
)
def test_advice_on_a_redirect_can_be_followed(location, url, advice):
    redirect = read_redirect("https://u:hush@h/prefix/ws", location)
    assert redirect.url == url
    assert advice in redirect.advice


def test_a_long_body_of_a_refusal_is_not_waited_for():
    head = b"HTTP/1.1 500 Oops\r\nContent-Length: 1000000\r\n\r\n"
    assert read(head + b"x" * 4095) is None
    loss = read(head + b"x" * 4096)
    assert isinstance(loss, Loss)
    assert len(loss.message or "") < 300


def test_half_a_body_that_ends_still_names_the_status():
    loss = read(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\nonly", ended=True)
    assert loss == Loss("handshake_status", "403", "HTTP 403 Forbidden: only")


def test_half_a_chunk_that_ends_still_names_the_status():
    loss = read(b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n20\r\nonly", ended=True)
    assert loss == Loss("handshake_status", "403", "HTTP 403 Forbidden: only")


@given(st.binary(max_size=300))
def test_any_bytes_are_an_answer_or_a_loss(data):
    assert read(data, ended=True) is not None
    assert read(b"HTTP/1.1 " + data + b"\r\n\r\n", ended=True) is not None
