"""OTLP/JSON, as the OpenTelemetry protocol defines it, decoded into spans."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from storescope import semconv
from storescope.insight.model import Process, Span

#: What other files hold that look alike: a key of theirs, and what to say of it.
_OTHERS: Final = {
    "resourceMetrics": "metrics, not spans",
    "resourceLogs": "logs, not spans",
    "data": "not OTLP (it looks like Jaeger's own JSON)",
    "traceEvents": "not OTLP (it looks like a Chrome trace)",
}
_KINDS: Final = ("INTERNAL", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_KIND_PREFIX: Final = "SPAN_KIND_"
_FAILED: Final = (2, "STATUS_CODE_ERROR")
#: Later than this (the year 2262) no clock is right, and times do not fit into 64 bits with a sign.
_LAST_TIME: Final = 2**63 - 1
#: What decoding a value of an unexpected shape raises.
MALFORMED: Final = (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError)

Refuse = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Layout:
    """How OTLP nests what it has of a signal: the names of its three lists."""

    signal: str
    resources: str
    scopes: str
    items: str


TRACES: Final = Layout("traces", "resourceSpans", "scopeSpans", "spans")
METRICS: Final = Layout("metrics", "resourceMetrics", "scopeMetrics", "metrics")


def what_else(document: Any) -> str:
    """Say what a JSON value is that holds no spans."""
    if isinstance(document, dict):
        for key, text in _OTHERS.items():
            if key in document:
                return text
    return 'JSON, but not OTLP (it has no "resourceSpans")'


def decode(document: dict[str, Any], origin: str, refuse: Refuse) -> Iterator[Span]:
    """Yield the spans of one OTLP/JSON object. `refuse` is told of each part that is malformed.

    `origin` tells processes apart whose resource does not.
    """
    resource: dict[str, Any] | None = None
    for resource_spans, _, spans in groups(document, refuse):
        if resource is not resource_spans:
            resource = resource_spans
            process = _process(resource_spans, origin, refuse)
        for raw in spans:
            try:
                span = _span(raw, process)
            except MALFORMED as error:
                refuse(f"a malformed span ({reason(error)})")
                continue
            yield span


def groups(
    document: dict[str, Any], refuse: Refuse, layout: Layout = TRACES
) -> Iterator[tuple[dict[str, Any], dict[str, Any], list[Any]]]:
    """Yield resource, scope and items as the document has them."""
    try:
        for of_resource in _list(document[layout.resources]):
            for of_scope in _list(of_resource.get(layout.scopes)):
                yield of_resource, of_scope, _list(of_scope.get(layout.items))
    except MALFORMED as error:
        refuse(f"malformed OTLP ({reason(error)})")


def identity(span: Any) -> tuple[str, str]:
    """Return trace and span id of a span as a document has it. Raises one of `MALFORMED` where it has none."""
    if not isinstance(span, dict):
        raise TypeError("it is not an object")
    trace_id, span_id = _id(span["traceId"]), _id(span["spanId"])
    if not trace_id or not span_id:
        raise ValueError("an id is zero")
    return trace_id, span_id


def reason(error: Exception) -> str:
    """Say what is malformed."""
    return f"no {error}" if isinstance(error, KeyError) else str(error)


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise TypeError(f"{type(value).__name__} where a list belongs")
    return value


def _process(resource_spans: dict[str, Any], origin: str, refuse: Refuse) -> Process:
    try:
        resource = _attributes((resource_spans.get("resource") or {}).get("attributes"))
    except MALFORMED as error:
        refuse(f"a malformed resource ({reason(error)})")
        resource = {}
    instance = resource.get("service.instance.id") or resource.get("process.pid") or origin
    return Process(str(resource.get("service.name", "unknown program")), str(instance))


def _span(raw: Any, process: Process) -> Span:
    trace_id, span_id = identity(raw)
    status = raw.get("status") or {}
    attributes = _attributes(raw.get("attributes"))
    return Span(
        process=process,
        trace_id=trace_id,
        span_id=span_id,
        parent_id=_id(raw["parentSpanId"]) if raw.get("parentSpanId") else "",
        name=str(raw.get("name", "")),
        kind=_kind(raw.get("kind", 0)),
        start=_time(raw, "startTimeUnixNano"),
        end=_time(raw, "endTimeUnixNano"),
        attributes=attributes,
        failed=status.get("code") in _FAILED or semconv.ERROR_TYPE in attributes,
        message=str(status.get("message", "")),
    )


def _id(text: str) -> str:
    """Return a trace or span id in lower case; an id of zeros means that there is none."""
    try:
        number = int(text, 16)
    except (TypeError, ValueError) as error:
        raise ValueError(f"id {text!r:.40} is not hexadecimal") from error
    return text.lower() if number else ""


def _time(raw: dict[str, Any], key: str) -> int:
    value = int(raw[key])
    if not 0 <= value <= _LAST_TIME:
        raise ValueError(f"{key} is {value}"[:80])
    return value


def _kind(kind: Any) -> str:
    return kind.removeprefix(_KIND_PREFIX) if isinstance(kind, str) else _KINDS[kind]


def _attributes(raw: Any) -> dict[str, Any]:
    return {pair["key"]: _value(pair.get("value") or {}) for pair in _list(raw)}


def _value(raw: dict[str, Any]) -> Any:
    for kind, value in raw.items():
        match kind:
            case "stringValue":
                return str(value)
            case "intValue":
                return int(value)
            case "boolValue":
                return bool(value)
            case "doubleValue":
                return float(value) if math.isfinite(float(value)) else str(value)
            case "arrayValue":
                return [_value(item) for item in _list(value.get("values"))]
            case "kvlistValue":
                return _attributes(value.get("values"))
            case "bytesValue":
                return str(value)
    return None
