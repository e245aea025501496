"""Keys and codecs, against what the standard library offers for the same."""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import statistics
import time
import zlib
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any

from storescope.core.payloads.codec import decode, encode
from storescope.core.payloads.keys import stable_key
from tests.benchmarks.row import Row

ROUNDS = 15
#: Seconds of one measurement of a round, about.
SPAN = 0.01
ARGUMENTS = {"path": "/srv/notes/roadmap.md", "lines": 40, "options": {"encoding": "utf-8"}}
WORDS = "the of store tool result server note road map plan file list error time value cache".split()


def rows() -> Iterator[Row]:
    """Measure keys of a usual call, then results of one kilobyte, of 64 KB of text, and of 300 records."""
    yield compare(
        "stable_key, against sorted json and blake2b",
        lambda: stable_key("files", "read_file", ARGUMENTS),
        lambda: blake2b(json.dumps(["files", "read_file", ARGUMENTS], sort_keys=True).encode()).digest(),
    )
    yield compare(
        "stable_key, against md5 of a pickle, as in the guide",
        lambda: stable_key("files", "read_file", ARGUMENTS),
        lambda: hashlib.md5(
            pickle.dumps(("files", "read_file", ARGUMENTS)), usedforsecurity=False
        ).hexdigest(),
    )
    yield compare(
        "stable_key of what msgpack refuses, against sorted json and blake2b",
        lambda: stable_key("files", "read_file", ARGUMENTS, (2**70,)),
        lambda: blake2b(
            json.dumps(["files", "read_file", ARGUMENTS, [2**70]], sort_keys=True).encode()
        ).digest(),
    )
    for name, value in _results().items():
        yield from _codec_rows(name, value)


def _codec_rows(name: str, value: Any) -> Iterator[Row]:
    plain, text = encode(value, compress_above=10**9), json.dumps(value).encode()
    small, squeezed = encode(value), zlib.compress(text)
    yield compare(
        f"encode {name}, against json",
        lambda: encode(value, compress_above=10**9),
        lambda: json.dumps(value).encode(),
    )
    yield compare(f"decode {name}, against json", lambda: decode(plain), lambda: json.loads(text))
    if len(small) < len(plain):
        yield compare(
            f"encode {name}, compressed, against json and zlib",
            lambda: encode(value),
            lambda: zlib.compress(json.dumps(value).encode()),
        )
        yield compare(
            f"decode {name}, compressed, against json and zlib",
            lambda: decode(small),
            lambda: json.loads(zlib.decompress(squeezed)),
        )
        yield Row(f"size of {name}, against json and zlib", len(small), len(squeezed), None, "bytes")


def _results() -> dict[str, Any]:
    """Return results as tools give them; the words are drawn so that they compress like prose, not like one line."""
    draw = random.Random(5)

    def prose(size: int) -> str:
        return " ".join(f"{draw.choice(WORDS)}{draw.randrange(50)}" for _ in range(size // 7))

    records = [
        {"id": number, "name": prose(20), "size": 40 * number, "tags": ["a", "b"]} for number in range(300)
    ]
    return {
        "1 KB": {"content": [{"type": "text", "text": prose(1_000)}], "isError": False},
        "64 KB of text": {"content": [{"type": "text", "text": prose(64_000)}], "isError": False},
        "300 records": {"content": records, "isError": False},
    }


def compare(name: str, ours: Callable[[], object], floor: Callable[[], object]) -> Row:
    """Time both in turn, so that whatever else the machine does falls on both."""
    calls = {work: max(1, int(SPAN / _seconds(work, 3))) for work in (ours, floor)}
    times: dict[Callable[[], object], list[float]] = {ours: [], floor: []}
    for _ in range(ROUNDS):
        for work, measured in times.items():
            measured.append(_seconds(work, calls[work]) * 1e6)
    return Row(name, statistics.median(times[ours]), statistics.median(times[floor]), None)


def _seconds(work: Callable[[], object], calls: int) -> float:
    begin = time.thread_time()
    for _ in range(calls):
        work()
    return (time.thread_time() - begin) / calls
