"""Keys of calls: equal for equal calls, in every process, whatever order their arguments came in."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final

import msgspec

from storescope.core.payloads import typed_json

_DIGEST_BYTES: Final = 16
_pack: Final = msgspec.msgpack.Encoder(order="deterministic").encode
_unpack: Final = msgspec.msgpack.Decoder(tuple[Any, ...]).decode


def stable_key(*parts: object) -> bytes:
    """Return 16 bytes that are the same for equal parts in every process, on every machine.

    Parts are equal where their types and values are: 1, 1.0, True, "1" and b"1" are five values, a tuple is no list,
    NaN is NaN, and the order of a dict does not matter. What `typed_json.dumps` takes can be keyed; an enum of text or
    numbers, a bytearray and a subclass of dict or list count as what they equal. The digest is BLAKE2b (RFC 7693).

    Raises TypeError for what has no written form, and ValueError for what is nested deeper than 100 levels.
    """
    try:
        written = _pack(parts)
        # It writes more than it can tell apart: a Decimal as text, a tuple as an array. Reading it back shows that.
        faithful = _unpack(written) == parts
    except (TypeError, OverflowError, UnicodeEncodeError, RecursionError, msgspec.MsgspecError):
        faithful = False
    text = b"m" + written if faithful else b"j" + typed_json.dumps(parts, canonical=True)
    return blake2b(text, digest_size=_DIGEST_BYTES).digest()
