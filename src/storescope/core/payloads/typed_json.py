"""JSON that keeps every kind of value apart, for what msgpack refuses or would merge with something else."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timezone
from typing import Any, Final

#: Containers within containers. JSON of tools is some ten levels deep; each interpreter can go as far as this.
MAX_DEPTH: Final = 100
#: Members of a set, or keys of a dict, that have one hash, as all multiples of 2**61 - 1 have: each is compared with
#: all others, so that without a bound some kilobytes of them would take seconds.
MAX_ALIKE: Final = 100

_LEAVES: Final = (bool, float, str, type(None))
#: All containers but dict; a list is a list in JSON as well, and the others carry their names.
_SEQUENCES: Final[Mapping[type[Any], str]] = {
    tuple: "tuple",
    set: "set",
    frozenset: "frozenset",
    list: "list",
}
#: What the names of `_tagged` stand for.
_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "bytes": lambda text: b64decode(text, validate=True),
    "dict": dict,
    "frozenset": frozenset,
    "int": lambda text: int(text, 16),
    "set": set,
    "time": datetime.fromisoformat,
    "tuple": tuple,
}


def dumps(value: object, *, canonical: bool = False) -> bytes:
    """Write a value; `canonical` sorts dicts, which else keep their order.

    Takes None, bool, int of any size, float, str, bytes, datetime with a time zone, list, tuple, set, frozenset and
    dict with keys of any of these. Raises TypeError for anything else, and ValueError above 100 levels, which is
    also how a value that contains itself ends, for a time before year 1 or after 9999 in UTC, and, unless `canonical`,
    for a set or dict in which more than 100 members have one hash.
    """
    return _text(_tagged(value, canonical, 0)).encode("utf-8", "surrogatepass")


def loads(text: bytes) -> Any:
    """Read what `dumps` has written. Raises ValueError, TypeError, KeyError or RecursionError for anything else."""
    return json.loads(text.decode("utf-8", "surrogatepass"), object_hook=_read)


def _text(tagged: object) -> str:
    return json.dumps(tagged, ensure_ascii=False, separators=(",", ":"))  # escapes would pair lone surrogates


def _tagged(value: Any, canonical: bool, depth: int) -> Any:
    """Return what stands for a value: a list for a list, itself for a leaf, else an object of one name."""
    if isinstance(value, _LEAVES):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else {"int": hex(value)}  # decimal digits have a limit
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"bytes": b64encode(value).decode()}
    if isinstance(value, datetime) and value.tzinfo is not None:
        return {"time": _in_utc(value).isoformat()}
    return _tagged_container(value, canonical, depth)


def _tagged_container(value: Any, canonical: bool, depth: int) -> Any:
    if depth == MAX_DEPTH:
        raise ValueError(f"value is nested deeper than {MAX_DEPTH} levels, or contains itself")
    if isinstance(value, (dict, set, frozenset)) and not canonical:  # what is canonical is not read again
        _check_hashes(value)
    if isinstance(value, dict):
        pairs = [[_tagged(part, canonical, depth + 1) for part in pair] for pair in value.items()]
        if canonical:
            pairs.sort(key=lambda pair: _text(pair[0]))
        return {"dict": pairs}
    for kind, name in _SEQUENCES.items():
        if isinstance(value, kind):
            items = [_tagged(item, canonical, depth + 1) for item in value]
            if name.endswith("set"):
                items.sort(key=_text)
            return items if kind is list else {name: items}
    raise TypeError(
        f"{type(value).__module__}.{type(value).__qualname__} has no written form: only None, bool, int, float, str, "
        "bytes, datetime with a time zone, and lists, tuples, sets and dicts of them"
    )


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(timezone.utc)
    except OverflowError as error:
        raise ValueError(f"{moment} has no date in UTC") from error


def _read(tagged: dict[str, Any]) -> Any:
    ((name, content),) = tagged.items()
    if name == "dict":
        _check_hashes([key for key, _ in content])
    elif name.endswith("set"):
        _check_hashes(content)
    return _READERS[name](content)


def _check_hashes(members: Collection[Any]) -> None:
    """Raise ValueError where to put these into a set would take quadratic time."""
    if len(members) > MAX_ALIKE and max(Counter(map(hash, members)).values()) > MAX_ALIKE:
        raise ValueError(f"more than {MAX_ALIKE} members of a set, or keys of a dict, have one hash")
