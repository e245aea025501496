"""The wire format of protocol buffers, as much of it as writing a message takes."""

from __future__ import annotations

from collections.abc import Iterable


def varint(value: int) -> bytes:
    """Write an integer of 64 bits; a negative one takes ten bytes."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def integer(field: int, value: int) -> bytes:
    """Write a field with an integer; nothing for 0, which is what a reader takes a missing one for."""
    return varint(field << 3) + varint(value) if value else b""


def packed(field: int, values: Iterable[int]) -> bytes:
    """Write a repeated field of integers."""
    return message(field, b"".join(map(varint, values)))


def message(field: int, content: bytes) -> bytes:
    """Write a field with a message, a text or bytes, empty ones too: in a table they have their place."""
    return varint(field << 3 | 2) + varint(len(content)) + content
