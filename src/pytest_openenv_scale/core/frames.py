"""WebSocket frames (RFC 6455) as a client needs them: bytes in, messages out, no input or output.

Frames sent are masked with a fresh key from the system's random source, as section 5.3 asks. Frames
received may be split anywhere, fragmented, and have control frames between their fragments.
"""

from __future__ import annotations

import os
from struct import Struct

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

MAX_MESSAGE = 256 * 1024 * 1024
"""Largest message accepted, in bytes; longer ones end the connection with code 1009."""

_SHORT = Struct("!H").unpack_from
_LONG = Struct("!Q").unpack_from


class FrameError(Exception):
    """The server broke the framing protocol; `code` is the close code that says how."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Entropy:
    """Masking keys, four random bytes each, drawn from the system a page at a time."""

    __slots__ = ("_at", "_page")

    def __init__(self) -> None:
        self._page = b""
        self._at = 0

    def key(self) -> bytes:
        at = self._at
        if at == len(self._page):
            self._page, at = os.urandom(4096), 0
        self._at = at + 4
        return self._page[at : at + 4]


_mask_key = _Entropy().key


class Message:
    """A message encoded once and masked afresh each time it is sent."""

    __slots__ = ("_header", "_length", "_padded", "_repeat", "_value")

    def __init__(self, payload: bytes, opcode: int = TEXT) -> None:
        length = len(payload)
        if length < 126:
            size = bytes((0x80 | length,))
        elif length < 65536:
            size = b"\xfe" + length.to_bytes(2, "big")
        else:
            size = b"\xff" + length.to_bytes(8, "big")
        self._header = bytes((0x80 | opcode,)) + size
        self._length = length
        self._padded = (length + 3) // 4 * 4
        self._value = int.from_bytes(payload, "little")
        self._repeat = int.from_bytes(b"\x01\x00\x00\x00" * (self._padded // 4), "little")

    def masked(self) -> bytes:
        """Return the frame, masked with a new key."""
        key = _mask_key()
        mask = int.from_bytes(key, "little") * self._repeat
        body = (self._value ^ mask).to_bytes(self._padded, "little")
        return self._header + key + (body if self._padded == self._length else body[: self._length])


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
    return code, _text(payload[2:])


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise FrameError(1007, f"text that is not UTF-8 ({error.reason} at byte {error.start})") from None


class FrameReader:
    """Turns received bytes into messages: `(opcode, payload)`, text as `str`, all else as `bytes`.

    `broken` is set where bytes broke the protocol after messages that were whole: those are returned
    first, so that a server's last words are read before its fault is named. Nothing may be fed after it.
    """

    __slots__ = ("_buffer", "_fragments", "_kind", "_need", "_size", "broken")

    def __init__(self) -> None:
        self.broken: FrameError | None = None
        self._buffer = bytearray()
        self._need = 2
        self._fragments: list[bytes] | None = None
        self._kind = 0
        self._size = 0

    def feed(self, data: bytes) -> list[tuple[int, str | bytes]]:
        """Take the next bytes and return the messages they complete, control frames included.

        Raises:
            FrameError: the bytes are not what a server may send, and no message came before them.
        """
        if not self._buffer and self._fragments is None and data[0] == 0x81:
            # By far the most frequent read: exactly one short or middling text frame.
            length, start = data[1] if len(data) > 1 else 127, 2
            if length == 126 and len(data) > 3:
                length, start = data[2] << 8 | data[3], 4
            if len(data) == start + length and (start == 4 or length < 126):
                return [(TEXT, _text(data[start:]))]
        buffer = self._buffer
        buffer += data
        messages: list[tuple[int, str | bytes]] = []
        try:
            while len(buffer) >= self._need and (frame := self._frame()) is not None:
                message = self._assemble(*frame)
                if message is not None:
                    messages.append(message)
        except FrameError as error:
            if not messages:
                raise
            self.broken = error
        return messages

    def _frame(self) -> tuple[int, bool, bytes] | None:
        """Cut one frame off the buffer, or note how many bytes it still needs."""
        buffer = self._buffer
        first, second = buffer[0], buffer[1]
        opcode, final = first & 0x0F, bool(first & 0x80)
        if first & 0x70:
            raise FrameError(1002, "reserved bits set although no extension was agreed")
        if second & 0x80:
            raise FrameError(1002, "masked frame from a server")
        if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise FrameError(1002, f"unknown opcode {opcode}")
        length, start = second, 2
        if opcode >= CLOSE and (length > 125 or not final):
            raise FrameError(1002, "control frame that is fragmented or longer than 125 bytes")
        if length == 126:
            start = 4
            if len(buffer) < start:
                self._need = start
                return None
            (length,) = _SHORT(buffer, 2)
        elif length == 127:
            start = 10
            if len(buffer) < start:
                self._need = start
                return None
            (length,) = _LONG(buffer, 2)
        if opcode < CLOSE and self._size + length > MAX_MESSAGE:
            raise FrameError(1009, f"message longer than {MAX_MESSAGE} bytes")
        end = start + length
        if len(buffer) < end:
            self._need = end
            return None
        payload = bytes(memoryview(buffer)[start:end])
        del buffer[:end]
        self._need = 2
        return opcode, final, payload

    def _assemble(self, opcode: int, final: bool, payload: bytes) -> tuple[int, str | bytes] | None:
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
        return self._kind, _text(whole) if self._kind == TEXT else whole
