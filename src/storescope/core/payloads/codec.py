"""Values as bytes that other processes and releases may read: versioned, checked, bounded, never pickled.

A blob is one byte for the codec, one for its version, four for the CRC-32 of all the rest, and the payload. The
checksum is there because most flipped bits of msgpack give another value that is quite as valid.
"""

from __future__ import annotations

import functools
import logging
import sys
import zlib
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

import msgspec

from storescope.core import checks
from storescope.core.errors import BadPayload
from storescope.core.payloads import typed_json
from storescope.core.payloads.typed_json import MAX_DEPTH

#: From here on zstd saves more time of a network of 1 Gbit/s than it takes, and below about 300 bytes it saves nothing.
COMPRESS_ABOVE: Final = 4096
#: Of a blob, and of what comes out of it.
MAX_BYTES: Final = 16 * 2**20

_VERSION: Final = 1
_HEADER: Final = 6
_CONTAINERS: Final = frozenset({dict, list, tuple, set, frozenset})
_ZSTD: Final = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
_logger: Final = logging.getLogger("storescope.core")

_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder().decode
#: How a codec's payload is read, and whether it is compressed.
_CODECS: Final[Mapping[bytes, tuple[Callable[[bytes], Any], bool]]] = {
    b"m": (_unpack, False),
    b"M": (_unpack, True),
    b"j": (typed_json.loads, False),
    b"J": (typed_json.loads, True),
}


def encode(value: object, *, compress_above: int = COMPRESS_ABOVE, max_bytes: int = MAX_BYTES) -> bytes:
    """Write a value: msgpack where that tells all of it apart, else typed JSON.

    Takes what `typed_json.dumps` takes, and what `decode` gives equals it and has the same types: tuples and sets
    come back as such, NaN as NaN. Only a subclass (an enum, a named tuple) comes back as the plain value that it
    equals, a bytearray as bytes, and a datetime in UTC. A payload above `compress_above` bytes is compressed by
    zstd where that is installed and makes it smaller.

    Raises TypeError for what has no written form: turn dataclasses and models into plain values first. Raises
    ValueError where it is nested deeper than 100 levels, or more than 100 members of a set have one hash, and
    BadPayload, which is one, above `max_bytes`.
    """
    checks.whole("compress_above", compress_above, 0)
    checks.whole("max_bytes", max_bytes)
    codec, payload = _write(value)
    if len(payload) > max_bytes:
        raise BadPayload(f"a value of {len(payload)} bytes is larger than {max_bytes}")
    if len(payload) > compress_above and (zstd := _zstd()) is not None:
        smaller = zstd.compress(payload)
        if len(smaller) < len(payload):
            codec, payload = codec.upper(), smaller
    start = codec + bytes([_VERSION])
    return start + _checksum(start, payload) + payload


def decode(blob: bytes, *, max_bytes: int = MAX_BYTES) -> Any:
    """Read what `encode` has written, here or elsewhere.

    Raises BadPayload for anything else: an unknown codec or version, flipped or missing bytes, more than `max_bytes`
    before or after decompression (found before the memory is taken), more than 100 levels, more than 100 members of
    a set with one hash (each would be compared with all others). A compressed blob is one as well where zstd is not
    installed, and the first one there leaves a warning.
    """
    checks.whole("max_bytes", max_bytes)
    if not isinstance(blob, bytes):
        raise TypeError(f"blob must be bytes, not {type(blob).__name__}")
    if len(blob) > max_bytes + _HEADER:
        raise BadPayload(f"a blob of {len(blob)} bytes is larger than {max_bytes}")
    start, payload = blob[:2], blob[_HEADER:]
    if start[1:] != bytes([_VERSION]) or start[:1] not in _CODECS:
        raise BadPayload(f"a blob begins with {start!r}, which is no codec of this release")
    if blob[2:_HEADER] != _checksum(start, payload):
        raise BadPayload(f"a blob of {len(blob)} bytes does not match its checksum")
    read, compressed = _CODECS[start[:1]]
    if compressed:
        payload = _decompressed(payload, max_bytes)
    try:
        value = read(payload)
    # Keys that cannot be keys are a TypeError, unknown names a KeyError, and years out of range an OverflowError.
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise BadPayload(f"a payload of {len(payload)} bytes cannot be read: {error}") from error
    if _deeper_than(value, MAX_DEPTH):
        raise BadPayload(f"a payload of {len(payload)} bytes is nested deeper than {MAX_DEPTH} levels")
    return value


def _write(value: object) -> tuple[bytes, bytes]:
    """Return the codec and the payload of a value."""
    try:
        payload = _pack(value)
        # It writes a Decimal as text and a tuple as an array; what it reads back is not equal then, nor is NaN.
        faithful = _unpack(payload) == value
    except (TypeError, OverflowError, UnicodeEncodeError, RecursionError, msgspec.MsgspecError):
        faithful = False
    if not faithful:
        return b"j", typed_json.dumps(value)
    if _deeper_than(value, MAX_DEPTH):
        raise ValueError(f"value is nested deeper than {MAX_DEPTH} levels")
    return b"m", payload


def _deeper_than(value: Any, levels: int) -> bool:
    """Look at values only: tuples as keys are as deep as the interpreter lets msgspec and json go."""
    level: list[Any] = [value] if type(value) in _CONTAINERS else []
    for _ in range(levels):
        if not level:
            return False
        level = [
            part
            for container in level
            for part in (container.values() if type(container) is dict else container)
            if type(part) in _CONTAINERS
        ]
    return bool(level)


def _checksum(start: bytes, payload: bytes) -> bytes:
    return zlib.crc32(payload, zlib.crc32(start)).to_bytes(4, "big")


def _decompressed(payload: bytes, max_bytes: int) -> bytes:
    """Undo zstd within `max_bytes`: of the output, and of the window that the frame asks for."""
    zstd = _zstd()
    if zstd is None:
        _warn_without_zstd()
        raise BadPayload(f"a payload of {len(payload)} bytes is compressed, and {_ZSTD} is not installed")
    window = min(max(max_bytes.bit_length(), 10), 31)
    try:
        stream = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: window})
        data: bytes = stream.decompress(payload, max_bytes + 1)
    except zstd.ZstdError as error:
        raise BadPayload(f"a payload of {len(payload)} bytes cannot be decompressed: {error}") from error
    if len(data) > max_bytes:
        raise BadPayload(f"a payload of {len(payload)} bytes is larger than {max_bytes} when decompressed")
    if not stream.eof or stream.unused_data:
        raise BadPayload(f"a payload of {len(payload)} bytes is not one frame of zstd")
    return data


@functools.cache
def _zstd() -> Any:
    """Return the module of zstd, or None where it is not installed."""
    try:
        return import_module(_ZSTD)
    except ImportError:
        return None


@functools.cache
def _warn_without_zstd() -> None:
    _logger.warning(
        "a compressed value is no hit here, because %s is not installed: pip install 'storescope[redis]'",
        _ZSTD,
    )
