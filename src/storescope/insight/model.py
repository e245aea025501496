"""What insight knows of a span, of where it came from, and of what could not be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from storescope import semconv

#: Values of `storescope.cache.result` with which nothing reached the server.
_ANSWERS_OF_A_CACHE: Final = frozenset({"hit", "stale", "coalesced"})


class InsightError(Exception):
    """What was asked for cannot be shown; the text says what, where and what to do."""


@dataclass(frozen=True, slots=True)
class Process:
    """Who recorded a span: a program, and one process of it."""

    #: OpenTelemetry's `service.name`.
    program: str
    #: What tells its processes apart: instance id, else process id, else the file that it wrote.
    instance: str


@dataclass(frozen=True, slots=True)
class Span:
    """One operation. Times are nanoseconds since 1970; ids are the file's, in lower case."""

    process: Process
    trace_id: str
    span_id: str
    #: Empty for a span without parent.
    parent_id: str
    name: str
    #: `CLIENT`, `SERVER`, `INTERNAL`, `PRODUCER` or `CONSUMER`.
    kind: str
    start: int
    end: int
    attributes: Mapping[str, Any]
    failed: bool
    #: The description of its status.
    message: str

    @property
    def duration(self) -> int:
        """Return its length in nanoseconds; a clock that was set back meanwhile makes it 0."""
        return max(0, self.end - self.start)

    @property
    def answered_by_cache(self) -> str:
        """Return how a cache answered in the server's place, such as `hit`; empty where none did."""
        result = str(self.attributes.get(semconv.CACHE_RESULT, ""))
        return result if result in _ANSWERS_OF_A_CACHE else ""


@dataclass(frozen=True, slots=True)
class Note:
    """A part of a file that was skipped, and why."""

    file: Path
    #: Counted from 1; 0 means the whole file.
    line: int
    text: str

    def __str__(self) -> str:
        where = f"{self.file}, line {self.line}" if self.line else str(self.file)
        return f"{where}: {self.text}"
