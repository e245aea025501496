"""Values as bytes: what comes back, and what becomes of bytes that nobody here has written."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from importlib import import_module
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.written_values import identity, values

from storescope.core.errors import BadPayload
from storescope.core.payloads import codec
from storescope.core.payloads.codec import decode, encode

zstd = import_module(codec._ZSTD)

NOON = datetime(2024, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))


class Pair(NamedTuple):
    a: int
    b: int


def sealed(start: bytes, payload: bytes) -> bytes:
    """Return a blob with a checksum that is right, whatever is in it."""
    return start + zlib.crc32(start + payload).to_bytes(4, "big") + payload


@settings(deadline=None, max_examples=100)
@given(values, st.sampled_from([0, 4096]))
def test_what_was_written_comes_back(value: Any, compress_above: int) -> None:
    """Every value comes back equal and of the same types at every depth, compressed or not."""
    assert identity(decode(encode(value, compress_above=compress_above))) == identity(value)


def test_the_order_of_a_dict_comes_back() -> None:
    """A dict comes back in its own order, in either codec."""
    for extra in (1, 2**70):
        value = {"z": 1, "a": extra, "m": 3}
        assert list(decode(encode(value))) == ["z", "a", "m"]


def test_subclasses_come_back_as_what_they_equal() -> None:
    """A named tuple comes back as a tuple, a bytearray as bytes, a time in UTC."""
    value = decode(encode([Pair(1, 2), bytearray(b"x"), NOON]))
    assert value == [(1, 2), b"x", NOON]
    assert [type(part) for part in value] == [tuple, bytes, datetime]
    assert value[2].tzinfo == timezone.utc


@pytest.mark.parametrize("value", [object(), Decimal(1), NOON.replace(tzinfo=None), {"a": (len,)}], ids=repr)
def test_what_has_no_written_form_is_refused(value: object) -> None:
    """Objects are not the codec's: nothing of them is written by their leave."""
    with pytest.raises(TypeError, match="has no written form"):
        encode(value)


def test_a_dataclass_is_refused() -> None:
    """A dataclass is refused, not written as the dict that it would come back as."""
    kind = dataclasses.make_dataclass("Point", ["x"])
    with pytest.raises(TypeError, match="Point has no written form"):
        encode([kind(1)])


@pytest.mark.parametrize("name", ["compress_above", "max_bytes"])
@pytest.mark.parametrize("bad", [-1, True, 1.5, float("nan"), "1"])
def test_bad_limits_are_refused(name: str, bad: object) -> None:
    """A limit that is no whole number is an error that names it."""
    with pytest.raises((TypeError, ValueError), match=name):
        encode(1, **{name: bad})  # type: ignore[arg-type]


def test_only_bytes_are_decoded() -> None:
    """A text, which a client with `decode_responses` would give, is an error and no miss."""
    with pytest.raises(TypeError, match="blob must be bytes, not str"):
        decode("m")  # type: ignore[arg-type]


# Compression


def test_large_values_are_compressed_where_it_pays() -> None:
    """A payload above 4 KB is compressed, one below is not, and neither is one that would not become smaller."""
    noise = b"".join(zlib.crc32(str(part).encode()).to_bytes(4, "big") for part in range(5_000))
    assert len(encode("text " * 10_000)) < 1_000
    assert len(encode("text " * 700)) > 3_500
    assert len(encode("text " * 700, compress_above=100)) < 200
    assert encode(noise)[:1] == b"m"
    assert decode(encode(noise)) == noise


def test_a_value_that_decode_would_refuse_is_not_written() -> None:
    """What is larger than `max_bytes` is refused when written, even where it would be small when compressed."""
    with pytest.raises(BadPayload, match="a value of 20000005 bytes is larger than 16777216"):
        encode("x" * 20_000_000)


@pytest.fixture
def without_zstd(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hide zstd as an environment without the extra does."""
    monkeypatch.setitem(sys.modules, codec._ZSTD, None)
    codec._zstd.cache_clear()
    codec._warn_without_zstd.cache_clear()
    yield
    codec._zstd.cache_clear()
    codec._warn_without_zstd.cache_clear()


def test_without_zstd_values_stay_as_they_are(without_zstd: None) -> None:
    """Where zstd is not installed, large values are stored without compression."""
    assert encode("text " * 10_000)[:1] == b"m"
    assert decode(encode("text " * 10_000)) == "text " * 10_000


def test_without_zstd_a_compressed_value_is_a_bad_payload_and_one_warning(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """A compressed value from elsewhere cannot be read without zstd; the log says so, once."""
    blob = encode("text " * 10_000)
    request.getfixturevalue("without_zstd")
    for _ in range(3):
        with pytest.raises(BadPayload, match=r"is compressed, and .* is not installed"):
            decode(blob)
    assert [(record.name, record.levelno) for record in caplog.records] == [
        ("storescope.core", logging.WARNING)
    ]
    assert "pip install 'storescope[redis]'" in caplog.text


# Bytes of others


@settings(deadline=None, max_examples=200)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.builds(
            sealed,
            st.sampled_from([b"m\x01", b"j\x01", b"M\x01", b"J\x01"]),
            st.one_of(
                st.binary(max_size=200),
                st.text(max_size=100).map(str.encode),
                st.binary(max_size=200).map(zstd.compress),
            ),
        ),
    )
)
def test_any_bytes_are_a_value_or_a_bad_payload(blob: bytes) -> None:
    """Whatever is decoded, also under a right checksum, gives a value or BadPayload, and no other error."""
    with contextlib.suppress(BadPayload):
        decode(blob)


@settings(deadline=None, max_examples=100)
@given(values, st.booleans(), st.data())
def test_a_flipped_bit_is_never_another_value(value: Any, compress: bool, data: st.DataObject) -> None:
    """A blob with a flipped bit, or cut short, or with bytes added, is a bad payload and never another value."""
    blob = encode(value, compress_above=0 if compress else 4096)
    flipped = bytearray(blob)
    bit = data.draw(st.integers(0, 8 * len(blob) - 1), label="bit")
    flipped[bit // 8] ^= 1 << bit % 8
    length = data.draw(st.integers(0, len(blob) - 1), label="length")
    for bad in (bytes(flipped), blob[:length], blob + b"\0"):
        with pytest.raises(BadPayload):
            decode(bad)


@pytest.mark.parametrize("start", [b"m\x00", b"m\x02", b"x\x01", b"p\x01", b"\x80\x04"])
def test_other_formats_are_bad_payloads(start: bytes) -> None:
    """Another codec, another version, and a pickle are refused by their first bytes."""
    with pytest.raises(BadPayload, match="which is no codec of this release"):
        decode(sealed(start, msgspec.msgpack.encode(1)))


@pytest.mark.parametrize(
    ("start", "payload"),
    [
        (b"m\x01", b"\xdd\xff\xff\xff\xff"),
        (b"m\x01", b"\xdd\x7f\xff\xff\xff" * 900),
        (b"m\x01", b"\xdf\xff\xff\xff\xff"),
        (b"m\x01", b"\xdb\xff\xff\xff\xff"),
        (b"m\x01", b"\x81\x80\x01"),
        (b"m\x01", b"\xd6\xff" + b"\xff" * 4 + b"\x00"),
        (b"m\x01", b"\xc7\x0c\xff\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff"),
        (b"j\x01", b"[1"),
        (b"j\x01", b"\xff"),
        (b"j\x01", b'{"shop": 1}'),
        (b"j\x01", b'{"int": 1}'),
        (b"j\x01", b'{"int": "1", "set": []}'),
        (b"j\x01", b'{"dict": [1]}'),
        (b"j\x01", b'{"dict": [[[], 1]]}'),
        (b"j\x01", b'{"set": [[]]}'),
        (b"j\x01", b'{"bytes": "?"}'),
        (b"j\x01", b'{"time": "yesterday"}'),
        (b"j\x01", b"{}"),
        (b"M\x01", b"x"),
        (b"M\x01", zstd.compress(b"\x01")[:-1]),
        (b"M\x01", zstd.compress(b"\x01") + b"x"),
        (b"M\x01", zstd.compress(b"\x01" * 2)),
    ],
)
def test_broken_payloads_are_bad_payloads(start: bytes, payload: bytes) -> None:
    """Sizes that lie, keys that cannot be keys, unknown names and cut frames are refused, under a right checksum."""
    with pytest.raises(BadPayload):
        decode(sealed(start, payload))


DEEP = {
    "arrays": (b"m\x01", b"\x91" * 2_000_000 + b"\x00"),
    "maps": (b"m\x01", b"\x81\xa1a" * 1_000_000 + b"\x00"),
    "keys": (b"m\x01", b"\x81\x91" * 1_000_000 + b"\x00" * 2),
    "json": (b"j\x01", b"[" * 2_000_000 + b"]" * 2_000_000),
    "objects": (b"j\x01", b'{"tuple":[' * 200_000 + b"]}" * 200_000),
    "a level too many": (b"m\x01", b"\x91" * 100 + b"\x90"),
    "a level too many in json": (b"j\x01", b'{"tuple":[' * 100 + b'{"tuple":[]}' + b"]}" * 100),
}


@pytest.mark.parametrize("name", DEEP)
def test_hostile_nesting_is_a_bad_payload(name: str) -> None:
    """A payload nested without end is an error, in the main thread and in another; no crash, no RecursionError."""
    blob = sealed(*DEEP[name])
    errors = []

    def read() -> None:
        try:
            decode(blob)
        except BaseException as error:
            errors.append(error)

    read()
    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert [type(error) for error in errors] == [BadPayload, BadPayload]


@pytest.mark.parametrize("name", ["set", "frozenset", "dict"])
@pytest.mark.parametrize("item", ["int", "tuple"])
def test_members_with_one_hash_are_bounded(name: str, item: str) -> None:
    """Each is compared with all others: a hundred can be written and read, and more are refused either way."""
    numbers = [number * (2**61 - 1) for number in range(10, 111)]
    members: list[Any] = [(number,) for number in numbers] if item == "tuple" else numbers
    kind = {"set": set, "frozenset": frozenset, "dict": dict.fromkeys}[name]
    assert decode(encode(kind(members[1:]))) == kind(members[1:])
    with pytest.raises(ValueError, match="more than 100 members of a set, or keys of a dict, have one hash"):
        encode([kind(members)])
    written = [{"int": hex(number)} for number in numbers]
    keys: list[Any] = [{"tuple": [number]} for number in written] if item == "tuple" else written
    content = [[key, None] for key in keys] if name == "dict" else keys
    with pytest.raises(BadPayload, match="have one hash"):
        decode(sealed(b"j\x01", json.dumps({name: content}).encode()))


def test_a_large_set_of_large_numbers_comes_back() -> None:
    """Only a common hash is bounded."""
    value = {2**70 + number for number in range(1000)}
    assert decode(encode(value)) == value


def test_a_hundred_levels_come_back() -> None:
    """As many levels as may be written can be read, and one more is refused when it is written."""
    for leaf in (1, 2**70):
        value: Any = [leaf]
        for _ in range(99):
            value = [value]
        assert decode(encode(value)) == value
        with pytest.raises(ValueError, match="nested deeper than 100 levels"):
            encode([value])


def test_a_zip_bomb_is_refused_before_it_takes_memory() -> None:
    """A blob that would become 2 GB, whether its header says so or not, costs no more than the limit."""
    program = """
import resource, sys, zlib
from importlib import import_module
from storescope.core.payloads import codec
from storescope.core.errors import BadPayload
zstd = import_module(codec._ZSTD)
stream = zstd.ZstdCompressor(level=1)
chunk = bytes(2**20)
silent = b"".join(stream.compress(chunk) for _ in range(2048)) + stream.flush()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for limit in (2**20, codec.MAX_BYTES):
    start = b"M\\x01"
    blob = start + zlib.crc32(start + silent).to_bytes(4, "big") + silent
    try:
        codec.decode(blob, max_bytes=limit)
    except BadPayload as error:
        print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    small, large, mebibytes = finished.stdout.splitlines()
    assert "cannot be decompressed" in small or "larger than 1048576 when decompressed" in small
    assert "larger than 16777216 when decompressed" in large
    assert int(mebibytes) < 100


def test_a_large_blob_is_refused() -> None:
    """A blob above `max_bytes` is refused before anything of it is read."""
    blob = encode("x" * 1000)
    assert decode(blob, max_bytes=1003) == "x" * 1000
    with pytest.raises(BadPayload, match="a blob of 1009 bytes is larger than 1002"):
        decode(blob, max_bytes=1002)


def test_blobs_of_the_first_version_stay_readable() -> None:
    """What this version has written, the next ones read: the bytes do not change unnoticed."""
    assert encode({"a": [1, "b"]}).hex() == "6d01ddd7c1f781a1619201a162"
    assert (
        encode((2**70,)).hex()
        == "6a0190c6c53d7b227475706c65223a5b7b22696e74223a223078343030303030303030303030303030303030227d5d7d"
    )
    assert json.loads(encode((2**70,))[6:]) == {"tuple": [{"int": hex(2**70)}]}
