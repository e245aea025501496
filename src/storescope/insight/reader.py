"""JSON values of a file: one a line, or one after the other in any layout."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterator
from json.decoder import JSONDecodeError
from pathlib import Path
from typing import Any, Final

NoteLine = Callable[[int, str], None]

_BYTE_ORDER_MARK: Final = "\ufeff"
_UNREADABLE: Final = (ValueError, RecursionError)
_DECODER: Final = json.JSONDecoder()


def read(file: Path, note: NoteLine, lines: Container[int] | None = None) -> Iterator[tuple[int, Any]]:
    """Yield each JSON value with the line, counted from 1, where it begins.

    Lines that are not JSON go to `note` and the next ones are read; bytes that are not UTF-8 are replaced.
    `lines` leaves out all others. Holds one line in memory, or the whole file where values span lines.
    """
    text = _text_across_lines(file)
    return _read_lines(file, note, lines) if text is None else _read_values(text, note, lines)


def _read_lines(file: Path, note: NoteLine, lines: Container[int] | None) -> Iterator[tuple[int, Any]]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if lines is not None and number not in lines:
                continue
            text = _text(line).strip()
            if not text:
                continue
            try:
                value = json.loads(text)
            except _UNREADABLE as error:
                note(number, _complaint(text, error, ended=line.endswith(b"\n")))
            else:
                yield number, value


def _text_across_lines(file: Path) -> str | None:
    """Return the whole text if its first value does not end with its line, as in pretty-printed JSON."""
    with file.open("rb") as stream:
        first = next((text for line in stream if (text := _text(line).strip())), "")
    if not first.startswith(("{", "[")) or _is_json(first):
        return None
    text = _text(file.read_bytes())
    try:
        _DECODER.raw_decode(text, _skip_space(text, 0))
    except _UNREADABLE:
        return None
    return text


def _read_values(text: str, note: NoteLine, lines: Container[int] | None) -> Iterator[tuple[int, Any]]:
    position = _skip_space(text, 0)
    line = 1 + text.count("\n", 0, position)
    while position < len(text):
        try:
            value, end = _DECODER.raw_decode(text, position)
        except _UNREADABLE as error:
            note(line, _complaint(text[position:], error, ended=False))
            end = text.find("\n{", position) + 1 or len(text)
        else:
            if lines is None or line in lines:
                yield line, value
        end = _skip_space(text, end)
        line += text.count("\n", position, end)
        position = end


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").removeprefix(_BYTE_ORDER_MARK)


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except _UNREADABLE:
        return False
    return True


def _complaint(text: str, error: Exception, *, ended: bool) -> str:
    if not text.startswith(("{", "[")):
        return "not JSON"
    if not isinstance(error, JSONDecodeError):
        return f"JSON that cannot be decoded ({error})"
    if not ended:
        return "an incomplete line (its program was killed while writing it, or is still writing)"
    return f"a torn line ({error.msg.lower()}, column {error.colno})"
