"""Digests of calls, for telemetry: equal for equal calls, and of no use to whoever lacks the key."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final, Literal

#: Above either bound a call has no digest: making it would cost the caller more than it is worth.
MAX_BYTES: Final = 64 * 1024
MAX_NODES: Final = 1_000
#: Integers of so many bits become text under every limit that an interpreter may have been given.
_MAX_BITS: Final = 2048

_DIGEST_BYTES: Final = 16
_TEXT: Final = frozenset({str})
_PLAIN: Final = frozenset({bool, int, float, type(None)})

Reason = Literal["size", "nodes", "type"]


class NoDigest(Exception):
    """A call that has no digest, and why: too large, of too many nodes, or of a type without canonical form."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


def call_digest(key: bytes, service: str | None, tool: str, canonical: Sequence[Any]) -> str:
    """Return 32 hexadecimal digits: the same for the same call, and of no use to whoever lacks `key`.

    `canonical` is the form that `canonical_arguments` has given the arguments; `key` has 32 bytes (64 at most).
    """
    text = ascii([service, tool, *canonical])
    return blake2b(text.encode(), digest_size=_DIGEST_BYTES, key=key).hexdigest()


def canonical_arguments(arguments: object) -> tuple[list[Any], int]:
    """Return a copy of arguments in a form that is the same for the same call, and their size.

    Calls are the same where their JSON is, but for the order of names: a tuple is a list, while 1, 1.0, "1" and
    True are four values. Bytes, which JSON does not have, equal only bytes; NaN is a value like others. The size is
    that of all text and data, names included, in bytes of UTF-8.

    Raises NoDigest: `size` above 64 KB, or for an integer above 2,048 bits; `nodes` above 1,000 names and values,
    which is also how arguments that contain themselves end; `type` for a name that is not text and for all but exact
    built-in types, so that no code of the application runs here.
    """
    # The nodes, breadth first, a dict as `[length]` and a list as `(length,)`: it can be read in one way only.
    canonical: list[Any] = []
    nodes: list[Any] = [arguments]
    size = 0
    for node in nodes:  # grows while it is walked
        kind = type(node)
        form: Any = node
        if kind is str:
            size += len(node)
            if (
                size <= MAX_BYTES and not node.isascii()
            ):  # none of it is looked at where it is too long anyway
                size += len(node.encode("utf-8", "surrogatepass")) - len(node)
        elif kind is bytes or kind is bytearray:
            size += len(node)
            form = bytes(node) if size <= MAX_BYTES else b""
        elif kind is dict:
            form = _open_dict(node, nodes)
        elif kind is list or kind is tuple:
            form = _open_list(node, nodes)
        elif kind not in _PLAIN:
            raise NoDigest("type")
        elif kind is int and node.bit_length() > _MAX_BITS:
            raise NoDigest("size")
        if size > MAX_BYTES:
            raise NoDigest("size")
        canonical.append(form)
    return canonical, size


def _open_dict(node: dict[Any, Any], nodes: list[Any]) -> list[int]:
    """Add the names and values of a dict to the nodes, and return what stands for it."""
    _check_nodes(len(nodes) + 2 * len(node))
    if not _TEXT.issuperset(map(type, node)):
        raise NoDigest("type")
    names = sorted(node)
    nodes += names
    nodes += map(node.__getitem__, names)
    return [len(names)]


def _open_list(node: list[Any] | tuple[Any, ...], nodes: list[Any]) -> tuple[int]:
    """Add the items of a list to the nodes, and return what stands for it."""
    _check_nodes(len(nodes) + len(node))
    nodes += node
    return (len(node),)


def _check_nodes(nodes: int) -> None:
    if nodes > MAX_NODES:
        raise NoDigest("nodes")
