"""OTLP/JSON as programs write it, built by hand, for the tests of what reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from storescope import semconv

#: When the first program starts, in seconds since 1970: 15 January 2027, 08:00 UTC.
DAY = 1_800_000_000
CLIENT, INTERNAL, SERVER = 3, 1, 2

Json = dict[str, Any]


def span(
    name: str = "work",
    *,
    trace: int = 1,
    number: int = 1,
    parent: int = 0,
    at: float = 0.0,
    took: float = 0.01,
    kind: int = INTERNAL,
    error: str | None = None,
    message: str = "",
    **attributes: object,
) -> Json:
    """Build a span. `at` and `took` are seconds; attribute names are written with `__` for a dot."""
    named = {key.replace("__", "."): value for key, value in attributes.items()}
    if error is not None:
        named[semconv.ERROR_TYPE] = error
    raw = {
        "traceId": f"{trace:032x}",
        "spanId": f"{number:016x}",
        "name": name,
        "kind": kind,
        "startTimeUnixNano": str(DAY * 10**9 + round(at * 1e9)),
        "endTimeUnixNano": str(DAY * 10**9 + round((at + took) * 1e9)),
        "attributes": [{"key": key, "value": _value(value)} for key, value in named.items()],
        "status": {"code": 2, "message": message} if error is not None else {},
    }
    return raw | ({"parentSpanId": f"{parent:016x}"} if parent else {})


def call(
    tool: str = "echo", *, service: str = "lab", sent: int = 10, received: int = 100, **options: Any
) -> Json:
    """Build the span of a tool call."""
    return span(
        f"tools/call {tool}",
        kind=CLIENT,
        **{
            semconv.MCP_METHOD_NAME: "tools/call",
            semconv.GEN_AI_TOOL_NAME: tool,
            semconv.SERVICE_NAME: service,
            semconv.REQUEST_SIZE: sent,
            semconv.RESPONSE_SIZE: received,
        },
        **options,
    )


def calls(count: int, *, first: int = 1, at: float = 0.0, every: float = 0.1, **options: Any) -> list[Json]:
    """Build calls one after the other, each a trace of its own."""
    return [call(trace=first + n, number=first + n, at=at + n * every, **options) for n in range(count)]


def batch(
    *spans: Json, program: str = "app.py", instance: str | None = "1", unconfirmed: bool = False
) -> Json:
    """Build the OTLP object that a process exports at once."""
    resource: dict[str, object] = {"service.name": program}
    if instance is not None:
        resource["service.instance.id"] = instance
    if unconfirmed:
        resource[semconv.EXPORT_UNCONFIRMED] = True
    attributes = [{"key": key, "value": _value(value)} for key, value in resource.items()]
    scope_spans = [{"scope": {"name": "storescope"}, "spans": list(spans)}]
    return {"resourceSpans": [{"resource": {"attributes": attributes}, "scopeSpans": scope_spans}]}


def write(file: Path, *documents: Json, tail: str = "") -> Path:
    """Write one object a line, as the agent does, and a `tail` as a killed process leaves it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{json.dumps(document)}\n" for document in documents) + tail, encoding="utf-8")
    return file


def _value(value: object) -> Json:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case _:
            return {"stringValue": value}
