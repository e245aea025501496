"""Payloads as they may be recorded: JSON text without its secrets, within a size."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

from storescope.instrumentation.redaction import (
    LOOK_AHEAD,
    MASK,
    Redactor,
    encodable,
    is_count,
    is_secret_name,
)

#: What is nested deeper is named by its type alone; this is how a value that contains itself ends.
MAX_DEPTH: Final = 32
#: Wider integers would take long to become text, and some interpreters refuse.
_MAX_BITS: Final = 2048

_quote: Final = json.JSONEncoder(ensure_ascii=False).encode
_MASKED: Final = _quote(MASK)
#: Keys of an entry such as `{"name": "DB_PASSWORD", "value": ...}`.
_NAMING: Final = ("name", "key", "header", "Name", "Key", "Header")
#: Text that can be a name by itself, in lists such as `["--password", ...]` and `["Cookie", ...]`.
_NAME: Final = re.compile(r"-{0,2}[\w.-]+")
_LONGEST_NAME: Final = 80
_KEY_BEGINS: Final = re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?!.*-----END )", re.DOTALL)
_LINE: Final = 4096
# Not `kind.__name__`, which a metaclass may have made into anything.
_name_of: Final = type.__dict__["__name__"].__get__


def captured(payload: object, limit: int, redactor: Redactor) -> str:
    """Return at most `limit` bytes of a payload's JSON text, with `[redacted]` for each secret in it.

    What JSON has no form for is named by its type, `"<Path>"`, and data by its size; no code of the application
    runs, unless to compare names. The time goes with `limit`, whatever the size of the payload. Never raises: a
    payload that another thread changes meanwhile ends where that showed.
    """
    writer = _Writer(redactor, limit + LOOK_AHEAD)
    with contextlib.suppress(Exception):  # full, or the payload changed meanwhile: what was written stands
        writer.write(payload, 0)
    # Once more, for what the user's pattern finds in numbers, or in a name and its value together.
    text = encodable(redactor.matched("".join(writer.pieces)))
    return text.encode()[:limit].decode(errors="ignore")


class _Full(Exception):
    """There is as much text as was asked for."""


class _Writer:
    """Writes a value as JSON until it is done or `room` characters are there."""

    def __init__(self, redactor: Redactor, room: int) -> None:
        self.pieces: list[str] = []
        self._room = room
        self._redactor = redactor

    def write(self, value: Any, depth: int) -> None:
        kind = type(value)
        if issubclass(kind, str):
            self._text(value)
        elif issubclass(kind, dict) and depth < MAX_DEPTH:
            self._dict(value, depth)
        elif issubclass(kind, list) and depth < MAX_DEPTH:
            self._list(list.__getitem__(value, slice(self._room)), depth)
        elif issubclass(kind, tuple) and depth < MAX_DEPTH:
            self._list(tuple.__getitem__(value, slice(self._room)), depth)
        else:
            self._put(_scalar(value, kind))

    def _put(self, piece: str) -> None:
        self.pieces.append(piece)
        self._room -= len(piece)
        if self._room <= 0:
            raise _Full

    def _text(self, value: str) -> None:
        room = self._room
        piece = _quote(self._redactor.head(_head(value, room + LOOK_AHEAD), room))
        if str.__len__(value) <= room:
            self._put(piece)
        else:
            self.pieces.append(piece[:-1])  # however little of it is left
            raise _Full

    def _dict(self, value: dict[Any, Any], depth: int) -> None:
        names_secret = any(_names_secret(dict.get(value, naming)) for naming in _NAMING)
        opening = "{"
        for key, item in dict.items(value):
            self._put(opening)
            name = self._name(key)
            self._put(": ")
            if (is_secret_name(name) and not _is_plain(name, item)) or (
                names_secret and name in ("value", "Value")
            ):
                self._put(_MASKED)
            else:
                self.write(item, depth + 1)
            opening = ", "
        self._put("}" if opening == ", " else "{}")

    def _name(self, key: Any) -> str:
        """Write a key and return it."""
        if not issubclass(type(key), str):
            key = _scalar(key, type(key)).strip('"')
        self._text(key)
        return _head(key, _LINE)[-_LONGEST_NAME:]

    def _list(self, value: Sequence[Any], depth: int) -> None:
        opening = "["
        for item, is_secret in _with_secrets(value):
            self._put(opening)
            if is_secret:
                self._put(_MASKED)
            else:
                self.write(item, depth + 1)
            opening = ", "
        self._put("]" if opening == ", " else "[]")


def _scalar(value: Any, kind: type) -> str:
    """Return what is neither text nor container as JSON."""
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if issubclass(kind, int) and int.bit_length(value) <= _MAX_BITS:
        return int.__repr__(value)
    if issubclass(kind, float):
        text = float.__repr__(value)
        return text if math.isfinite(float.__float__(value)) else f'"<{text}>"'
    if issubclass(kind, (bytes, bytearray)):
        return f'"<{memoryview(value).nbytes} bytes>"'
    return _quote(f"<{_name_of(kind)}>")


def _with_secrets(items: Sequence[Any]) -> Iterator[tuple[Any, bool]]:
    """Tell of each item whether those before it make it a secret: its name, or the first lines of a private key."""
    after_name = in_key = False
    is_pair = len(items) == 2
    for item in items:
        line = _head(item, _LINE) if issubclass(type(item), str) else ""
        yield item, after_name or in_key
        after_name = (is_pair or line.startswith("-")) and _names_secret(line)
        if "-----" in line:
            in_key = bool(_KEY_BEGINS.search(line))


def _names_secret(value: object) -> bool:
    """Tell whether a value is the name of a secret that is to be found beside it."""
    if not issubclass(type(value), str):
        return False
    name = _head(cast("str", value), _LONGEST_NAME)
    return bool(_NAME.fullmatch(name)) and is_secret_name(name)


def _is_plain(name: str, value: object) -> bool:
    """Tell whether a value is none to hide, though its name is a secret's: a switch, nothing, a number of tokens."""
    return value is None or type(value) is bool or (type(value) in (int, float) and is_count(name))


def _head(text: str, length: int) -> str:
    """Return the first characters of a text as plain `str`, whatever subclass it is of."""
    return str.__getitem__(text, slice(length))
