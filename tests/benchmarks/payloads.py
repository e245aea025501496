"""What a call's digest and its recorded arguments cost, against the shortest code that gives something alike."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from hashlib import blake2b

from storescope.core.payloads.digest import call_digest, canonical_arguments
from storescope.instrumentation.capture import captured
from storescope.instrumentation.redaction import Redactor
from tests.benchmarks.row import Row

CALLS = 2000
ROUNDS = 25
KEY = b"k" * 32
LIMIT = 4096
ARGUMENTS = {"path": "/srv/notes/roadmap.md", "lines": 40, "options": {"encoding": "utf-8"}}


def rows() -> Iterator[Row]:
    """Measure a call of usual arguments."""
    redactor = Redactor()
    yield compare(
        "digest of a call, against json and blake2b",
        lambda: call_digest(KEY, "files", "read_file", canonical_arguments(ARGUMENTS)[0]),
        lambda: blake2b(
            json.dumps(["files", "read_file", ARGUMENTS], sort_keys=True).encode(), digest_size=16, key=KEY
        ).hexdigest(),
        1.15,
    )
    yield compare(
        "arguments recorded, against json that is not redacted",
        lambda: captured(ARGUMENTS, LIMIT, redactor),
        lambda: json.dumps(ARGUMENTS, ensure_ascii=False)[:LIMIT],
    )


def compare(
    name: str, ours: Callable[[], object], floor: Callable[[], object], target: float | None = None
) -> Row:
    """Time both in turn, so that whatever else the machine does falls on both."""
    times: dict[Callable[[], object], list[float]] = {ours: [], floor: []}
    for _ in range(ROUNDS):
        for work, measured in times.items():
            measured.append(_microseconds(work))
    return Row(name, statistics.median(times[ours]), statistics.median(times[floor]), target)


def _microseconds(work: Callable[[], object]) -> float:
    begin = time.thread_time()
    for _ in range(CALLS):
        work()
    return (time.thread_time() - begin) / CALLS * 1e6
