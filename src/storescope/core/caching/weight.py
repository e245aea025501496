"""How much memory a value takes, roughly."""

from __future__ import annotations

import sys
from types import FunctionType, MethodType, ModuleType
from typing import Any, Final

#: Of a value of more parts than this the rest is reckoned from what was seen: a weight may not cost more than it saves.
MAX_PARTS: Final = 10_000

#: What an entry of a cache takes beside its key and its value: its place in the order and among the deadlines.
ENTRY_BYTES: Final = 450

_SHARED: Final = (type, ModuleType, FunctionType, MethodType)
_SEQUENCES: Final = (list, tuple, set, frozenset)


def memory_size(value: object, max_parts: int = MAX_PARTS) -> int:
    """Add up the bytes of memory of a value and of what it holds, as `sys.getsizeof` has them.

    Follows dicts, lists, tuples, sets and the attributes of other objects; classes, functions and modules are shared
    and count nothing. What is met twice counts once. Above `max_parts` parts it extrapolates.
    """
    parts: list[Any] = [value]
    seen: set[int] = set()
    total = visited = 0
    for part in parts:  # grows while it is walked
        if id(part) in seen or isinstance(part, _SHARED):
            continue
        seen.add(id(part))
        total += sys.getsizeof(part, 0)
        visited += 1
        if visited == max_parts:
            return total * len(parts) // visited
        _add_parts(part, parts)
    return total


def entry_size(key: object, value: object) -> int:
    """Return the bytes of memory that an entry of a cache takes: those of key and value, and a fixed part."""
    return ENTRY_BYTES + memory_size((key, value))


def _add_parts(part: Any, parts: list[Any]) -> None:
    if isinstance(part, dict):
        parts += dict.keys(part)
        parts += dict.values(part)
    elif isinstance(part, _SEQUENCES):
        parts += part
    elif isinstance(attributes := getattr(part, "__dict__", None), dict):
        parts.append(attributes)
