"""What `storescope view --json` prints: the same traces and tables, for programs. docs/view.md describes it."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any, Final

from storescope import semconv
from storescope.insight.runs import Run
from storescope.insight.selection import Selection
from storescope.insight.source import Source
from storescope.insight.tables import Kind, Statistics
from storescope.insight.traces import Branch, Trace

FORMAT: Final = "storescope.view/1"
_SECOND: Final = 1_000_000_000


def build_document(source: Source, selection: Selection, traces: Iterable[Trace]) -> dict[str, Any]:
    """Return a JSON object. Times are ISO 8601 in UTC, durations seconds, sizes bytes."""
    return {
        "format": FORMAT,
        "files": [str(file) for file in source.files],
        "runs": [_run(run) for run in selection.runs],
        "other_runs": selection.other_runs,
        "traces": [_trace(trace) for trace in traces],
        "tools": _table(selection, "tool"),
        "operations": _table(selection, "operation"),
        "phases": _table(selection, "phase"),
        "skipped": [
            {"file": str(note.file), "line": note.line, "reason": note.text} for note in source.notes
        ],
        "skipped_more": source.notes_left_off,
    }


def _run(run: Run) -> dict[str, Any]:
    return {
        "program": run.program,
        "processes": len(run.processes),
        "start": _moment(run.start),
        "duration_seconds": (run.end - run.start) / _SECOND,
    }


def _trace(trace: Trace) -> dict[str, Any]:
    return {
        "trace_id": trace.trace_id,
        "program": trace.root.process.program,
        "start": _moment(trace.start),
        "duration_seconds": (trace.end - trace.start) / _SECOND,
        "errors": trace.errors,
        "spans": [_span(branch) for branch in trace.branches],
    }


def _span(branch: Branch) -> dict[str, Any]:
    span = branch.span
    error = {"type": span.attributes.get(semconv.ERROR_TYPE), "message": span.message}
    return {
        "span_id": span.span_id,
        "parent_span_id": span.parent_id or None,
        "depth": branch.depth,
        "name": span.name,
        "kind": span.kind,
        "program": span.process.program,
        "start": _moment(span.start),
        "duration_seconds": span.duration / _SECOND,
        "error": error if span.failed else None,
        "attributes": dict(span.attributes),
    }


def _table(selection: Selection, kind: Kind) -> list[dict[str, Any]]:
    return [_row(row, kind) for row in selection.statistics if row.subject.kind == kind]


def _row(row: Statistics, kind: Kind) -> dict[str, Any]:
    return {
        "service": row.subject.service or None,
        kind: row.subject.name,
        "cache_result": row.subject.cache_result or None,
        "calls": row.calls,
        "errors": row.errors,
        "total_seconds": row.total / _SECOND,
        "p50_seconds": row.p50 / _SECOND,
        "p95_seconds": row.p95 / _SECOND,
        "max_seconds": row.max / _SECOND,
        "bytes_sent": row.sent,
        "bytes_received": row.received,
    }


def _moment(nanoseconds: int) -> str:
    moment = datetime.datetime.fromtimestamp(nanoseconds // _SECOND, datetime.timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds % _SECOND:09d}Z"
