"""Tables per tool, per store operation and per phase: how often, how long, how much."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from storescope import semconv
from storescope.insight.model import Span

Kind = Literal["tool", "operation", "phase"]
_TOOL_CALL: Final = "tools/call"


class Subject(NamedTuple):
    """What a row of a table is about."""

    kind: Kind
    #: The MCP service; empty where the span names none.
    service: str
    name: str
    #: How the cache answered in the server's place, so that a tool's percentiles stay those of the tool.
    cache_result: str


@dataclass(slots=True)
class Tally:
    """What is kept of the spans of one subject: 8 bytes each, so that percentiles are exact."""

    durations: array[int] = field(default_factory=lambda: array("q"))
    errors: int = 0
    sent: int | None = None
    received: int | None = None

    def add(self, span: Span) -> None:
        """Count one span."""
        self.durations.append(span.duration)
        self.errors += span.failed
        self.sent = _sum(self.sent, span.attributes.get(semconv.REQUEST_SIZE))
        self.received = _sum(self.received, span.attributes.get(semconv.RESPONSE_SIZE))

    def merge(self, other: Tally) -> None:
        """Count what another tally counted."""
        self.durations.extend(other.durations)
        self.errors += other.errors
        self.sent = _sum(self.sent, other.sent)
        self.received = _sum(self.received, other.received)


@dataclass(frozen=True, slots=True)
class Statistics:
    """One row. Durations are nanoseconds, sizes bytes; a size is None where no span knows it."""

    subject: Subject
    calls: int
    errors: int
    total: int
    p50: int
    p95: int
    max: int
    sent: int | None
    received: int | None


def subject_of(span: Span) -> Subject | None:
    """Return the row that a span belongs to; None if it is not an operation of a store."""
    attributes = span.attributes
    service = str(attributes.get(semconv.SERVICE_NAME, ""))
    cached = span.answered_by_cache
    if span.kind == "SERVER":
        return None
    if semconv.PHASE in attributes:
        return Subject("phase", service, str(attributes[semconv.PHASE]), cached)
    if semconv.STORE_OPERATION in attributes:
        return Subject("operation", service, str(attributes[semconv.STORE_OPERATION]), cached)
    method = attributes.get(semconv.MCP_METHOD_NAME)
    if method is None:
        return None
    if method == _TOOL_CALL:
        return Subject("tool", service, str(attributes.get(semconv.GEN_AI_TOOL_NAME, "?")), cached)
    prompt = attributes.get(semconv.GEN_AI_PROMPT_NAME)
    return Subject("operation", service, f"{method} {prompt}" if prompt else str(method), cached)


def statistics(tallies: Iterable[Mapping[Subject, Tally]]) -> list[Statistics]:
    """Merge tallies into rows: tools, then operations, then phases; in each the most time first."""
    merged: dict[Subject, Tally] = {}
    for part in tallies:
        for subject, tally in part.items():
            merged.setdefault(subject, Tally()).merge(tally)
    rows = [_row(subject, tally) for subject, tally in merged.items()]
    order: Sequence[Kind] = ("tool", "operation", "phase")
    return sorted(rows, key=lambda row: (order.index(row.subject.kind), -row.total, row.subject))


def percentile(ordered: Sequence[int], share: float) -> int:
    """Return the smallest value that at least `share` of all values do not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _row(subject: Subject, tally: Tally) -> Statistics:
    ordered = sorted(tally.durations)
    return Statistics(
        subject=subject,
        calls=len(ordered),
        errors=tally.errors,
        total=sum(ordered),
        p50=percentile(ordered, 0.50),
        p95=percentile(ordered, 0.95),
        max=ordered[-1],
        sent=tally.sent,
        received=tally.received,
    )


def _sum(total: int | None, size: Any) -> int | None:
    return (total or 0) + size if isinstance(size, int) else total
