"""What Jaeger has to show of the quickstart, whichever way it got there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import urlencode

from e2e.processes import Backend, eventually, fetch

GENERATION: Final = int(version("mcpstore").partition(".")[0])

#: A span's name and what is below it, in order of their start.
Tree = tuple[str, Sequence["Tree"]]

#: The parts of a call; 2.x shows none.
PHASES: Final[Mapping[int, Sequence[Tree]]] = {
    1: [("connect", [("initialize", [])]), ("list", []), ("call", [])],
    2: [],
}


@dataclass(frozen=True)
class Call:
    """A call of the program. What depends on the generation stands by its number."""

    name: str
    tags: Mapping[str, Any]
    phases: Mapping[int, Sequence[Tree]] = field(default_factory=lambda: PHASES)
    error_type: Mapping[int, str] = field(default_factory=dict)
    #: A part of the message.
    message: str = ""


def _reached(tool: str) -> dict[str, Any]:
    """Return the tags of a call that reached the server."""
    return {
        "gen_ai.tool.name": tool,
        "mcp.protocol.version": "2025-11-25",
        "network.transport": "pipe",
        "storescope.service.name": "notes",
        "storescope.tool.alias": f"notes_{tool}",
    }


#: What the store does by itself, and the calls: in the program's order, each a trace of its own.
OPERATIONS: Final = ("setup_store", "add_service notes", "wait_service notes", "list_tools")
CALLS: Final = (
    Call("tools/call read_note", _reached("read_note")),
    Call("tools/call summarize", _reached("summarize")),
    Call(
        "tools/call publish",
        _reached("publish"),
        error_type={1: "tool_error", 2: "tool_error"},
        message="the notice board is read-only",
    ),
    Call(
        "tools/call notes_translate",
        {"gen_ai.tool.name": "notes_translate"},
        phases={1: [], 2: []},
        error_type={1: "tool_not_found", 2: "internal"},
        message="Tool 'notes_translate' not found",
    ),
)
#: The tags of every call.
CALL_TAGS: Final = {
    "span.kind": "client",
    "mcp.method.name": "tools/call",
    "gen_ai.operation.name": "execute_tool",
    "otel.scope.name": "storescope",
}


@dataclass(frozen=True)
class Span:
    """A span in the form of Jaeger's page."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    service: str
    tags: Mapping[str, Any]


def find_traces(jaeger: Backend, service: str, **tags: str) -> list[dict[str, Any]]:
    """Ask Jaeger's query API for the traces of a service, which it has to list, or for those with some tags."""
    assert service in _ask(jaeger, "services")
    query = urlencode({"service": service, "limit": 100, "tags": json.dumps(tags)})
    return _ask(jaeger, f"traces?{query}")


def transform(jaeger: Backend, exported: bytes) -> list[dict[str, Any]]:
    """Have Jaeger read an exported file, as its page does at Search > Upload."""
    return _ask(jaeger, "transform", exported)


def assert_quickstart_arrives(jaeger: Backend, service: str) -> None:
    """Check what Jaeger has, again for some time if it is not all there yet, and that it finds errors by their type."""
    eventually(lambda: assert_quickstart_trace(find_traces(jaeger, service), service))
    for call in CALLS:
        if call.error_type:
            (trace,) = find_traces(jaeger, service, **{"error.type": call.error_type[GENERATION]})
            assert call.name in {span.name for span in _spans(trace)}


def assert_quickstart_trace(traces: Iterable[Mapping[str, Any]], service: str) -> None:
    """Check service, tree, tags and errors of all that the program did."""
    spans = sorted((span for trace in traces for span in _spans(trace)), key=lambda span: span.start)
    roots = [span for span in spans if not span.parent_id]
    calls = roots[len(OPERATIONS) :]

    assert {span.service for span in spans} == {service}
    assert [span.name for span in roots] == [*OPERATIONS, *(call.name for call in CALLS)]
    assert len({span.trace_id for span in roots}) == len(roots)
    for span in spans:
        assert span in calls or span.tags["span.kind"] == "internal"
    for call, span in zip(CALLS, calls, strict=True):
        assert _below(span, spans) == call.phases[GENERATION]
        assert {**CALL_TAGS, **call.tags}.items() <= span.tags.items()
        _assert_error(span, call)


def _assert_error(span: Span, call: Call) -> None:
    if call.error_type:
        assert span.tags["error"] is True
        assert span.tags["error.type"] == call.error_type[GENERATION]
        assert span.tags["otel.status_code"] == "ERROR"
        assert call.message in span.tags["otel.status_description"]
    else:
        assert not {"error", "error.type", "otel.status_code"} & set(span.tags)


def _ask(jaeger: Backend, path: str, body: bytes | None = None) -> list[Any]:
    answer = json.loads(fetch(jaeger.url("JAEGER_QUERY_PORT", f"/api/{path}"), body))
    assert not answer["errors"]
    return answer["data"] or []


def _spans(trace: Mapping[str, Any]) -> Iterable[Span]:
    for span in trace["spans"]:
        parents = [
            reference["spanID"]
            for reference in span["references"] or ()
            if reference["refType"] == "CHILD_OF" and reference["traceID"] == span["traceID"]
        ]
        yield Span(
            name=span["operationName"],
            trace_id=span["traceID"],
            span_id=span["spanID"],
            parent_id=parents[0] if parents else "",
            start=span["startTime"],
            service=trace["processes"][span["processID"]]["serviceName"],
            tags={tag["key"]: tag["value"] for tag in span["tags"]},
        )


def _below(parent: Span, spans: Iterable[Span]) -> list[Tree]:
    return [
        (span.name, _below(span, spans))
        for span in spans
        if (span.trace_id, span.parent_id) == (parent.trace_id, parent.span_id)
    ]
