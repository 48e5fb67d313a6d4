"""WebSocket frames: whatever a server may send reads back the same, and what it may not is named."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_openenv_scale.client import frames
from pytest_openenv_scale.client.frames import FrameError, FrameReader, Message, close_message, read_close
from scripted_server import frame, unmasked

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = (
    frames.TEXT,
    frames.BINARY,
    frames.CONTINUATION,
    frames.CLOSE,
    frames.PING,
    frames.PONG,
)
CONTROL = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125))
LENGTHS = [0, 1, 125, 126, 127, 65535, 65536, 3 * 1024 * 1024 + 1]


@st.composite
def conversations(draw) -> tuple[bytes, list[tuple[int, bytes]]]:
    """What a server sends, and the messages it means: fragmented, with control frames between the fragments."""
    data = bytearray()
    messages: list[tuple[int, bytes]] = []
    for _ in range(draw(st.integers(1, 5))):
        for opcode, payload in draw(st.lists(CONTROL, max_size=2)):
            data += frame(opcode, payload)
            messages.append((opcode, payload))
        text = draw(st.one_of(st.text(max_size=200), st.binary(max_size=200)))
        encoded = text.encode() if isinstance(text, str) else text
        cuts = sorted(draw(st.lists(st.integers(0, len(encoded)), max_size=3)))
        pieces = [encoded[start:end] for start, end in pairwise([0, *cuts, len(encoded)])]
        for number, piece in enumerate(pieces):
            opcode = CONTINUATION if number else TEXT if isinstance(text, str) else BINARY
            data += frame(opcode, piece, final=number == len(pieces) - 1)
            if number < len(pieces) - 1:
                for kind, payload in draw(st.lists(CONTROL, max_size=1)):
                    data += frame(kind, payload)
                    messages.append((kind, payload))
        messages.append((TEXT if isinstance(text, str) else BINARY, encoded))
    return bytes(data), messages


def read_all(data: bytes, cuts: list[int]) -> list[tuple[int, bytes]]:
    reader = FrameReader()
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [message for start, end in pairwise(places) for message in reader.feed(data[start:end])]


@settings(max_examples=200, deadline=None)
@given(conversations(), st.lists(st.integers(0, 10_000), max_size=12))
def test_what_a_server_sends_reads_back_the_same_wherever_it_is_split(conversation, cuts):
    data, messages = conversation
    assert read_all(data, cuts) == messages


@settings(max_examples=50, deadline=None)
@given(conversations())
def test_what_arrives_byte_by_byte_reads_back_the_same(conversation):
    data, messages = conversation
    assert read_all(data, list(range(len(data)))) == messages


@settings(max_examples=300, deadline=None)
@given(st.one_of(conversations().map(lambda conversation: conversation[0]), st.binary(min_size=1, max_size=300)))
def test_the_short_way_reads_nothing_that_the_long_way_reads_otherwise(data):
    def outcome(read) -> object:
        try:
            return read(data)
        except FrameError as error:
            return error.code, str(error)

    short = outcome(frames.parse_single_text)
    if short is not None:
        assert outcome(FrameReader().feed) == ([(TEXT, short)] if isinstance(short, bytes) else short)


@pytest.mark.parametrize("length", LENGTHS)
def test_the_short_way_reads_one_whole_message_up_to_64_kib_and_nothing_else(length):
    message = frame(TEXT, b"x" * length)
    assert frames.parse_single_text(message) == (b"x" * length if length < 65536 else None)
    for other in (
        message[:-1],
        message + b"\x81",
        frame(TEXT, b"x" * length, final=False),
        frame(BINARY, b"x" * length),
    ):
        assert frames.parse_single_text(other) is None
    reader = FrameReader()
    reader.feed(message[:1])
    assert not reader.idle


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("piece", [None, 16 * 1024])
def test_a_message_of_every_kind_of_length_is_read(length, piece):
    text = "x" * length
    data = frame(TEXT, text.encode())
    reader = FrameReader()
    step = piece or len(data)
    messages = [message for at in range(0, len(data), step) for message in reader.feed(data[at : at + step])]
    assert messages == [(TEXT, text.encode())]


@pytest.mark.parametrize("length", LENGTHS)
def test_a_masked_message_unmasks_to_its_payload(length):
    payload = bytes(number % 251 for number in range(256)) * (length // 256 + 1)
    data = Message(payload[:length], BINARY).masked()
    assert unmasked(data) == (BINARY, payload[:length])


@given(st.binary(max_size=300), st.sampled_from([TEXT, BINARY, PING, PONG]))
def test_any_payload_survives_masking(payload, opcode):
    assert unmasked(Message(payload, opcode).masked()) == (opcode, payload)


def test_each_sending_is_masked_with_a_key_of_its_own():
    message = Message(b"a" * 64)
    masked = [message.masked() for _ in range(5000)]
    keys = {data[2:6] for data in masked}
    assert len(keys) > 4990
    assert len({byte for key in keys for byte in key}) == 256


def test_data_is_never_sent_in_the_clear():
    assert sum(b"secret!!" in Message(b"secret!!").masked() for _ in range(100)) == 0


VIOLATIONS = {
    "reserved bit 1": (b"\xc1\x00", 1002),
    "reserved bit 2": (b"\xa1\x00", 1002),
    "reserved bit 3": (b"\x91\x00", 1002),
    "masked by a server": (b"\x81\x81aaaab", 1002),
    "unknown data opcode": (b"\x83\x00", 1002),
    "unknown control opcode": (b"\x8b\x00", 1002),
    "fragmented ping": (b"\x09\x00", 1002),
    "ping of 126 bytes": (b"\x89\x7e\x00\x7e" + b"x" * 126, 1002),
    "continuation of nothing": (b"\x80\x00", 1002),
    "message inside a message": (b"\x01\x01a\x81\x01b", 1002),
    "text that is not UTF-8": (b"\x81\x02\xc3\x28", 1007),
    "long text that is not UTF-8": (frame(TEXT, b"\xff" * 70_000), 1007),
    "half a character at the end": (b"\x81\x01\xc3", 1007),
    "longer than may be": (b"\x81\x7f" + (frames.MAX_MESSAGE + 1).to_bytes(8, "big"), 1009),
    "longest length there is": (b"\x82\x7f" + b"\xff" * 8, 1009),
    "too long in fragments": (frame(TEXT, b"xx", final=False) + b"\x80\x7f" + (2**28 - 1).to_bytes(8, "big"), 1009),
}


@pytest.mark.parametrize("split", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("name", VIOLATIONS)
def test_every_violation_is_an_error_with_its_close_code(name, split):
    data, code = VIOLATIONS[name]
    with pytest.raises(FrameError) as caught:
        read_all(data, list(range(len(data))) if split else [])
    assert caught.value.code == code
    assert str(caught.value)


def test_a_character_split_between_fragments_is_no_violation():
    data = frame(TEXT, b"\xc3", final=False) + frame(CONTINUATION, b"\xa9")
    assert FrameReader().feed(data) == [(TEXT, "é".encode())]


def test_messages_before_a_violation_are_read_before_it_is_named():
    reader = FrameReader()
    assert reader.feed(frame(TEXT, b"last words") + b"\xff\xff") == [(TEXT, b"last words")]
    assert reader.error is not None
    assert reader.error.code == 1002


def test_a_reader_that_met_no_violation_is_not_broken():
    reader = FrameReader()
    reader.feed(frame(TEXT, b"fine") + frame(PING, b""))
    assert reader.error is None


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1014, 3000, 4000, 4999])
def test_codes_a_server_may_send_are_read_with_their_reason(code):
    assert read_close(code.to_bytes(2, "big") + "weil ä".encode()) == (code, "weil ä")


def test_a_close_frame_without_a_code_reads_as_1005():
    assert read_close(b"") == (1005, "")


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535])
def test_codes_nobody_may_send_are_a_violation(code):
    with pytest.raises(FrameError) as caught:
        read_close(code.to_bytes(2, "big"))
    assert caught.value.code == 1002


@pytest.mark.parametrize(("payload", "code"), [(b"\x03", 1002), (b"\x03\xe8\xff", 1007)])
def test_a_malformed_close_frame_is_a_violation(payload, code):
    with pytest.raises(FrameError) as caught:
        read_close(payload)
    assert caught.value.code == code


@pytest.mark.parametrize(("code", "payload"), [(None, b""), (1000, b"\x03\xe8"), (1011, b"\x03\xf3")])
def test_a_close_frame_carries_its_code(code, payload):
    assert unmasked(close_message(code).masked()) == (CLOSE, payload)


def cpu_of_reading(data: bytes, piece: int) -> float:
    reader = FrameReader()
    began = time.process_time()
    for at in range(0, len(data), piece):
        reader.feed(data[at : at + piece])
    return time.process_time() - began


@pytest.mark.parametrize(
    ("make", "piece"),
    [
        (lambda size: frame(TEXT, b"x" * size), 1),
        (lambda size: frame(TEXT, b"a", final=False) + frame(CONTINUATION, b"b", final=False) * (size // 3), 64),
        (lambda size: frame(PING, b"") * (size // 2), 1 << 20),
    ],
    ids=["one frame in bytes", "many fragments", "many frames in one read"],
)
def test_twice_the_bytes_take_about_twice_the_time(make, piece):
    small, large = 40_000, 160_000
    best = [min(cpu_of_reading(make(size), piece) for _ in range(2)) for size in (small, large)]
    assert best[1] < 10 * best[0]  # four times as many bytes; quadratic would be sixteen


def test_eight_mebibytes_in_pieces_are_read_in_no_time():
    assert cpu_of_reading(frame(TEXT, b"x" * (8 << 20)), 16 * 1024) < 0.5
