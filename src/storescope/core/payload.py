"""How large a payload is, found without serializing it."""

from __future__ import annotations

from typing import Final

#: A payload of more parts than this is not measured: the walk would cost the caller more than the number is worth.
MAX_PARTS: Final = 10_000


def text_size(value: object, max_parts: int = MAX_PARTS) -> int | None:
    """Add up the UTF-8 length, in bytes, of every text and data part of `value`: keys, strings, bytes.

    Walks dicts, lists and tuples; other values count as nothing. Returns None above `max_parts` parts, which is
    also how a value that contains itself ends.
    """
    if isinstance(value, str):
        return _utf8_length(value)
    total = 0
    parts = [value]
    for part in parts:  # grows while it is walked
        if isinstance(part, str):
            total += len(part) if part.isascii() else _utf8_length(part)
        elif isinstance(part, dict):
            parts += part
            parts += part.values()
        elif isinstance(part, (list, tuple)):
            parts += part
        elif isinstance(part, (bytes, bytearray)):
            total += len(part)
        if len(parts) > max_parts:
            return None
    return total


def _utf8_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
