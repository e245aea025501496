"""How large a payload is, found without serializing it."""

from __future__ import annotations

from typing import Any, Final

_CONTAINERS: Final = frozenset({dict, list, tuple})

#: A payload of more parts than this is not measured: the walk would cost the caller more than the number is worth.
MAX_PARTS: Final = 10_000


def text_size(value: object, max_parts: int = MAX_PARTS) -> int | None:
    """Add up the UTF-8 length, in bytes, of every text and data part of `value`: keys, strings, bytes.

    Walks dicts, lists and tuples; other values count as nothing. Returns None above `max_parts` parts, which is
    also how a value that contains itself ends.
    """
    if type(value) is str:
        return _utf8_length(value)
    total = 0
    parts: list[Any] = [value]
    for part in parts:  # grows while it is walked
        kind = type(part)
        if kind is str:
            total += len(part) if part.isascii() else _utf8_length(part)
        elif kind in _CONTAINERS and len(parts) + len(part) > max_parts:
            return None  # before they are copied
        elif kind is dict:
            parts += part
            parts += part.values()
        elif kind is list or kind is tuple:
            parts += part
        else:
            total += _other_size(part, kind, parts)
        if len(parts) > max_parts:
            return None
    return total


def _other_size(part: Any, kind: type, parts: list[Any]) -> int:
    """Return the size of what is rarer, and add its parts; subclasses run none of their own code."""
    if issubclass(kind, str):
        return _utf8_length(part)
    if issubclass(kind, (bytes, bytearray)):
        return memoryview(part).nbytes
    if issubclass(kind, dict):
        parts += dict.keys(part)
        parts += dict.values(part)
    elif issubclass(kind, list):
        parts += list.__iter__(part)
    elif issubclass(kind, tuple):
        parts += tuple.__iter__(part)
    return 0


def _utf8_length(text: str) -> int:
    if str.isascii(text):
        return str.__len__(text)
    return len(str.encode(text, "utf-8", "surrogatepass"))
