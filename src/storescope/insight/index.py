"""One pass over all spans: what is kept of each trace and process, so that no span needs to be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from storescope import semconv
from storescope.insight.model import Process, Span
from storescope.insight.source import Place
from storescope.insight.tables import Subject, Tally, subject_of


@dataclass(slots=True)
class TraceEntry:
    """What is known of a trace before its spans are read again."""

    process: Process
    start: int
    end: int
    spans: int = 0
    errors: int = 0
    #: Whether one of its spans is of the service that was asked for.
    matched: bool = False
    places: list[Place] = field(default_factory=list)

    @property
    def duration(self) -> int:
        """Return the time from its first start to its last end, in nanoseconds."""
        return self.end - self.start


@dataclass(slots=True)
class ProcessEntry:
    """When a process was at work, and what its operations took."""

    start: int
    end: int
    tallies: dict[Subject, Tally] = field(default_factory=dict)


class Index:
    """What one pass over all spans leaves: well below a kilobyte a trace, 8 bytes a span besides."""

    def __init__(self, spans: Iterable[tuple[Place, Span]], service: str | None = None) -> None:
        """Read all `spans`, a repeated one once. `service`, a program or an MCP service, leaves others out."""
        self.traces: dict[str, TraceEntry] = {}
        self.processes: dict[Process, ProcessEntry] = {}
        #: The names that `service` may have.
        self.services: set[str] = set()
        seen: set[str] = set()
        for place, span in spans:
            identity = span.trace_id + span.span_id
            if identity in seen:
                continue
            seen.add(identity)
            names = {span.process.program, str(span.attributes.get(semconv.SERVICE_NAME, ""))} - {""}
            self.services |= names
            matched = service is None or service in names
            self._add_to_trace(place, span, matched)
            self._add_to_process(span, matched)

    def _add_to_trace(self, place: Place, span: Span, matched: bool) -> None:
        trace = self.traces.get(span.trace_id)
        end = span.start + span.duration
        if trace is None:
            trace = self.traces[span.trace_id] = TraceEntry(span.process, span.start, end)
        elif span.start < trace.start:
            trace.start, trace.process = span.start, span.process
        trace.end = max(trace.end, end)
        trace.spans += 1
        trace.errors += span.failed
        trace.matched |= matched
        if not trace.places or trace.places[-1] is not place:
            trace.places.append(place)

    def _add_to_process(self, span: Span, matched: bool) -> None:
        process = self.processes.get(span.process)
        end = span.start + span.duration
        if process is None:
            process = self.processes[span.process] = ProcessEntry(span.start, end)
        process.start = min(process.start, span.start)
        process.end = max(process.end, end)
        subject = subject_of(span) if matched else None
        if subject is not None:
            process.tallies.setdefault(subject, Tally()).add(span)
