"""WebSocket frames (RFC 6455) as a client sends and both sides read them: bytes in, messages out, no input or output.

Frames sent are masked with a fresh key from the system's random source, as section 5.3 asks. Frames
received may be split anywhere, fragmented, and have control frames between their fragments.
"""

from __future__ import annotations

import json
import os
from array import array
from itertools import chain
from struct import Struct

from pytest_openenv_scale.core.formatting import size

CONTINUATION = 0x0
TEXT = 0x1
BINARY = 0x2
CLOSE = 0x8
PING = 0x9
PONG = 0xA

MAX_MESSAGE = 256 * 1024 * 1024
"""Largest message accepted, in bytes; longer ones end the connection with code 1009."""

_SHORT = Struct("!H").unpack_from
_LONG = Struct("!Q").unpack_from


class FrameError(Exception):
    """The other side broke the framing protocol; `code` is the close code that says how."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


_mask_keys = chain.from_iterable(iter(lambda: array("I", os.urandom(4096)), None))
"""Masking keys, 32 random bits each, drawn from the system a page at a time."""


class Message:
    """A message encoded once and masked afresh each time it is sent.

    The frame is kept as one integer with zeroes for its key: exclusive-or with the key times `_repeat`, which
    has a one wherever the key stands or counts, sets the key and masks the payload in one go.
    """

    __slots__ = ("_excess", "_frame", "_repeat", "_size")

    def __init__(self, payload: bytes, opcode: int = TEXT, *, final: bool = True) -> None:
        length = len(payload)
        if length < 126:
            size = bytes((0x80 | length,))
        elif length < 65536:
            size = b"\xfe" + length.to_bytes(2, "big")
        else:
            size = b"\xff" + length.to_bytes(8, "big")
        header = bytes((0x80 | opcode if final else opcode,)) + size
        words = (length + 3) // 4
        self._frame = int.from_bytes(header + bytes(4) + payload, "little")
        self._repeat = int.from_bytes(bytes(len(header)) + b"\x01\x00\x00\x00" * (1 + words), "little")
        self._size = len(header) + 4 + 4 * words
        self._excess = length - 4 * words

    def masked(self) -> bytes:
        """Return the frame, masked with a new key."""
        frame = (self._frame ^ next(_mask_keys) * self._repeat).to_bytes(self._size, "little")
        return frame[: self._excess] if self._excess else frame


def close_message(code: int | None) -> Message:
    """Return a close frame with this code; without one the frame is empty."""
    return Message(b"" if code is None else code.to_bytes(2, "big"), CLOSE)


def read_close(payload: bytes) -> tuple[int, str]:
    """Return the code and the reason of a close frame; 1005 where it carries none.

    Raises:
        FrameError: the payload is one byte long, its code may not be sent, or its reason is not UTF-8.
    """
    if not payload:
        return 1005, ""
    if len(payload) == 1:
        raise FrameError(1002, "close frame of one byte")
    code = int.from_bytes(payload[:2], "big")
    if not (1000 <= code <= 1014 and code not in (1004, 1005, 1006)) and not 3000 <= code <= 4999:
        raise FrameError(1002, f"close code {code} may not be sent")
    return code, _utf8(payload[2:]).decode()


def _utf8(payload: bytes) -> bytes:
    if not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError as error:
            raise FrameError(1007, f"text that is not UTF-8 ({error.reason} at byte {error.start})") from None
    return payload


def text_of_binary(payload: bytes) -> bytes:
    """Return the text of a binary message in UTF-8: JSON is read from it as Python's `json.loads` reads bytes.

    Raises:
        FrameError: the message is no text in any encoding that JSON has.
    """
    try:
        return payload.decode(json.detect_encoding(payload)).encode()
    except UnicodeDecodeError:
        raise FrameError(1003, "binary message that is not JSON in UTF-8, UTF-16 or UTF-32") from None


def parse_single_text(data: bytes) -> bytes | None:
    """Return the text if these bytes are exactly one unfragmented text frame of up to 64 KiB, else None.

    By far the most frequent read between messages; everything else is `FrameReader`'s.

    Raises:
        FrameError: the text is not UTF-8.
    """
    if data[0] != 0x81:
        return None
    size, length = len(data), data[1] if len(data) > 1 else 127
    if length < 126 and size == 2 + length:
        return _utf8(data[2:])
    if length == 126 and size > 4 and size == 4 + (data[2] << 8 | data[3]):
        return _utf8(data[4:])
    return None


def unmask(key: bytes, payload: bytes) -> bytes:
    """Return a payload with its mask of four bytes taken off."""
    length = len(payload)
    mask = (key * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(mask, "little")).to_bytes(length, "little")


class FrameReader:
    """Turns received bytes into messages: `(opcode, payload)`, the payload of a text being valid UTF-8.

    Frames of a client are `masked`, those of a server are not; `max_message` is in bytes.
    `error` is set where bytes broke the protocol after messages that were whole: those are returned
    first, so that a server's last messages are read before its fault is reported. Nothing may be fed after it.
    """

    __slots__ = ("_buffer", "_bytes_needed", "_fragments", "_kind", "_masked", "_max_message", "_size", "error")

    def __init__(self, *, masked: bool = False, max_message: int = MAX_MESSAGE) -> None:
        self._masked = masked
        self._max_message = max_message
        self.error: FrameError | None = None
        self._buffer = bytearray()
        self._bytes_needed = 2
        self._fragments: list[bytes] | None = None
        self._kind = 0
        self._size = 0

    @property
    def idle(self) -> bool:
        """Whether no frame and no message is read in part only."""
        return not self._buffer and self._fragments is None

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take the next bytes and return the messages they complete, control frames included.

        Raises:
            FrameError: the bytes are not what the other side may send, and no message came before them.
        """
        buffer = self._buffer
        buffer += data
        messages: list[tuple[int, bytes]] = []
        try:
            while len(buffer) >= self._bytes_needed and (frame := self._read_frame()) is not None:
                message = self._assemble(*frame)
                if message is not None:
                    messages.append(message)
        except FrameError as error:
            if not messages:
                raise
            self.error = error
        return messages

    def _read_frame(self) -> tuple[int, bool, bytes] | None:
        """Cut one frame off the buffer, or note how many bytes it still needs."""
        buffer = self._buffer
        first, length = buffer[0], buffer[1]
        masked = self._masked
        opcode, final = first & 0x0F, bool(first & 0x80)
        if first & 0x70:
            raise FrameError(1002, "reserved bits set although no extension was agreed")
        if masked:
            length ^= 0x80
        if length > 0x7F:
            raise FrameError(1002, "unmasked frame from a client" if masked else "masked frame from a server")
        if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise FrameError(1002, f"unknown opcode {opcode}")
        start = 2
        if opcode >= CLOSE and (length > 125 or not final):
            raise FrameError(1002, "control frame that is fragmented or longer than 125 bytes")
        if length == 126:
            start = 4
            if len(buffer) < start:
                self._bytes_needed = start
                return None
            (length,) = _SHORT(buffer, 2)
        elif length == 127:
            start = 10
            if len(buffer) < start:
                self._bytes_needed = start
                return None
            (length,) = _LONG(buffer, 2)
        if opcode < CLOSE and self._size + length > self._max_message:
            raise FrameError(1009, f"message longer than {size(self._max_message)}")
        if masked:
            start += 4
        end = start + length
        if len(buffer) < end:
            self._bytes_needed = end
            return None
        payload = bytes(memoryview(buffer)[start:end])
        if masked:
            payload = unmask(bytes(buffer[start - 4 : start]), payload)
        del buffer[:end]
        self._bytes_needed = 2
        return opcode, final, payload

    def _assemble(self, opcode: int, final: bool, payload: bytes) -> tuple[int, bytes] | None:
        """Join fragments; return a message when one is complete."""
        if opcode >= CLOSE:
            return opcode, payload
        if opcode == CONTINUATION:
            if self._fragments is None:
                raise FrameError(1002, "continuation without a message to continue")
        elif self._fragments is not None:
            raise FrameError(1002, "new message inside a fragmented one")
        else:
            self._kind, self._fragments = opcode, []
        self._fragments.append(payload)
        self._size += len(payload)
        if not final:
            return None
        whole = payload if len(self._fragments) == 1 else b"".join(self._fragments)
        self._fragments, self._size = None, 0
        return self._kind, _utf8(whole) if self._kind == TEXT else whole
