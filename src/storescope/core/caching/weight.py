"""How much memory a value takes, roughly."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from types import FunctionType, MemberDescriptorType, MethodType, ModuleType, NoneType
from typing import Any, Final

#: Of a value of more parts than this the rest is reckoned from what was seen: a weight may not cost more than it saves.
MAX_PARTS: Final = 10_000

#: What an entry of a cache takes beside its key and its value: its place in the order and among the deadlines.
ENTRY_BYTES: Final = 450

_SHARED: Final = (type, ModuleType, FunctionType, MethodType)
_SEQUENCES: Final = (list, tuple, set, frozenset, deque)
#: What holds nothing else; it is most of what there is.
_PLAIN: Final = frozenset({str, bytes, bytearray, int, float, complex, bool, NoneType})


def memory_size(value: object, max_parts: int = MAX_PARTS) -> int:
    """Add up the bytes of memory of a value and of what it holds, as `sys.getsizeof` has them.

    Follows dicts, lists, tuples, sets, deques and attributes, in slots or not; classes, functions and modules are
    shared and count nothing. What is met twice counts once, and what raises when it is looked into as an empty shell.
    Above `max_parts` parts it extrapolates.
    """
    parts: list[Any] = [value]
    seen: set[int] = set()
    total = visited = 0
    for part in parts:  # grows while it is walked
        if id(part) in seen or issubclass(
            type(part), _SHARED
        ):  # isinstance would ask a proxy for its `__class__`
            continue
        seen.add(id(part))
        total += _shell_size(part)
        visited += 1
        if visited == max_parts:
            return total * len(parts) // visited
        if type(part) not in _PLAIN:
            try:  # noqa: SIM105 - suppress costs as much as the rest
                parts.extend(_parts(part))
            except Exception:  # noqa: S110 - its code may raise anything, and its weight is a guess
                pass
    return total


def entry_size(key: object, value: object) -> int:
    """Return the bytes of memory that an entry of a cache takes: those of key and value, and a fixed part."""
    return ENTRY_BYTES + memory_size((key, value))


def _shell_size(part: Any) -> int:
    try:
        return sys.getsizeof(part)
    except Exception:  # its `__sizeof__` may raise anything
        return object.__sizeof__(part)


def _parts(part: Any) -> Iterator[Any]:
    kind = type(part)
    if issubclass(kind, dict):
        yield from dict.keys(part)
        yield from dict.values(part)
    elif issubclass(kind, _SEQUENCES):
        yield from part
    for each in kind.__mro__:
        if "__slots__" in each.__dict__:
            yield from _slots(part, each)
    yield getattr(part, "__dict__", None)


def _slots(part: Any, kind: type) -> Iterator[Any]:
    """Give the values of the slots that one class has added; those that are not set have none."""
    for member in list(kind.__dict__.values()):
        if type(member) is MemberDescriptorType:
            with suppress(AttributeError):
                yield member.__get__(part)
