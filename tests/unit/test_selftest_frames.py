"""What the null server reads: frames of clients wherever they are split, and whole HTTP requests."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_openenv_scale.client.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    FrameError,
    FrameReader,
    unmask,
)
from pytest_openenv_scale.client.handshake import new_key, read_upgrade_response
from pytest_openenv_scale.selftest.null_server import (
    MAX_BODY,
    MAX_HEAD,
    MAX_MESSAGE,
    RequestError,
    http_answer,
    read_request,
    server_frame,
    upgrade_answer,
)

CONTROL = st.tuples(st.sampled_from([PING, PONG, CLOSE]), st.binary(max_size=125))
KEYS = st.binary(min_size=4, max_size=4)


def client_frame(opcode: int, payload: bytes, key: bytes = b"\x01\x82\x03\x84", *, final: bool = True) -> bytes:
    """A frame as a client sends it, masked byte by byte as the RFC writes it."""
    length = len(payload)
    if length < 126:
        size = bytes([0x80 | length])
    else:
        size = b"\xfe" + length.to_bytes(2, "big") if length < 65536 else b"\xff" + length.to_bytes(8, "big")
    masked = bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))
    return bytes([(0x80 if final else 0) | opcode]) + size + key + masked


@st.composite
def conversations(draw) -> tuple[bytes, list[tuple[int, bytes]]]:
    """What a client sends, and the messages it means: fragmented, with control frames between the fragments."""
    sent, messages = bytearray(), []
    for _ in range(draw(st.integers(1, 4))):
        opcode, payload = draw(
            st.tuples(st.just(TEXT), st.text(max_size=100).map(str.encode))
            | st.tuples(st.just(BINARY), st.binary(max_size=300))
        )
        cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=2)))
        pieces = [payload[start:end] for start, end in pairwise([0, *cuts, len(payload)])]
        for number, piece in enumerate(pieces):
            last = number == len(pieces) - 1
            sent += client_frame(CONTINUATION if number else opcode, piece, draw(KEYS), final=last)
            for kind, data in draw(st.lists(CONTROL, max_size=1)) if not last else ():
                sent += client_frame(kind, data, draw(KEYS))
                messages.append((kind, data))
        messages.append((opcode, payload))
    return bytes(sent), messages


def read_all(data: bytes, cuts: list[int]) -> list[tuple[int, bytes]]:
    reader = FrameReader(masked=True, max_message=MAX_MESSAGE)
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [message for start, end in pairwise(places) for message in reader.feed(data[start:end])]


@settings(max_examples=200, deadline=None)
@given(conversations(), st.lists(st.integers(0, 5000), max_size=12))
def test_what_a_client_sends_reads_back_the_same_wherever_it_is_split(conversation, cuts):
    data, messages = conversation
    assert read_all(data, cuts) == messages


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536, MAX_MESSAGE])
def test_a_message_of_every_kind_of_length_is_read(length):
    payload = bytes(at % 251 for at in range(length))
    data = client_frame(BINARY, payload)
    assert read_all(data, [1, 3, 7, 13, 4096]) == [(BINARY, payload)]
    assert FrameReader().feed(server_frame(BINARY, payload)) == [(BINARY, payload)]


@given(KEYS, st.binary(max_size=40))
def test_a_mask_comes_off_as_the_rfc_says(key, payload):
    assert unmask(key, payload) == bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


@pytest.mark.parametrize(
    ("data", "code", "says"),
    [
        (server_frame(TEXT, b"x"), 1002, "unmasked frame"),
        (client_frame(0x40 | TEXT, b"x"), 1002, "reserved bits"),
        (client_frame(3, b"x"), 1002, "unknown opcode 3"),
        (client_frame(PING, b"x", final=False), 1002, "control frame"),
        (client_frame(PING, b"x" * 126), 1002, "control frame"),
        (client_frame(TEXT, b"\xff"), 1007, "not UTF-8"),
        (client_frame(CONTINUATION, b"x"), 1002, "without a message to continue"),
        (client_frame(TEXT, b"x", final=False) + client_frame(TEXT, b"x"), 1002, "inside a fragmented one"),
        (client_frame(TEXT, b"x" * (MAX_MESSAGE + 1))[:14], 1009, "longer than"),
        (
            client_frame(TEXT, b"x" * MAX_MESSAGE, final=False) + client_frame(CONTINUATION, b"x"),
            1009,
            "longer than",
        ),
    ],
)
def test_what_no_client_may_send_is_named(data, code, says):
    with pytest.raises(FrameError, match=says) as error:
        read_all(data, [])
    assert error.value.code == code


# HTTP


def post(path: str, body: bytes, *lines: str) -> bytes:
    head = "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", f"content-LENGTH: {len(body)}", *lines])
    return f"{head}\r\n\r\n".encode() + body


@given(st.binary(max_size=60), st.binary(max_size=20))
def test_a_request_is_read_once_it_is_whole_and_leaves_what_follows(body, following):
    data = post("/step?x=1", body, "Accept: */*")
    assert all(read_request(data[:end]) is None for end in range(len(data)))
    request = read_request(data + following)
    assert request == (b"POST", b"/step", body, None, len(data))


def test_an_upgrade_is_accepted_as_a_client_wants_it():
    key = new_key()
    request = read_request(b"GET /ws HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Key: " + key + b"\r\n\r\nrest")
    assert request is not None
    assert (request.key, request.used) == (
        key,
        len(b"GET /ws HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Key: \r\n\r\n") + len(key),
    )
    assert read_upgrade_response(upgrade_answer(key), key, "http://127.0.0.1/ws") == b""


def test_an_answer_says_how_long_it_is():
    assert http_answer("200 OK", b"{}").endswith(b"\r\nContent-Length: 2\r\n\r\n{}")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01 hello\r\n\r\n", "400"),
        (b"x" * (MAX_HEAD + 1), "431"),
        (post("/step", b"", "Transfer-Encoding: chunked"), "411"),
        (b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1), "413"),
    ],
)
def test_what_is_no_request_has_a_status(data, status):
    with pytest.raises(RequestError, match=status):
        read_request(data)
