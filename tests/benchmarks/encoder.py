"""The OTLP/JSON encoder against the official protobuf one, per span, on the spans of tool calls."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as official_encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from storescope import semconv
from storescope.export.otlp_json import encode_spans
from tests.benchmarks.row import Row

TARGET = 0.5
BATCH = 512
ROUNDS = 25
ATTRIBUTES: dict[str, str | int | float] = {
    semconv.MCP_METHOD_NAME: "tools/call",
    semconv.MCP_PROTOCOL_VERSION: "2025-06-18",
    semconv.GEN_AI_OPERATION_NAME: "execute_tool",
    semconv.GEN_AI_TOOL_NAME: "echo",
    semconv.NETWORK_TRANSPORT: "pipe",
    semconv.JSONRPC_REQUEST_ID: "17",
    semconv.SERVICE_NAME: "lab",
    semconv.STORE_SCOPE: "store",
    semconv.TOOL_ALIAS: "lab_echo",
    semconv.REQUEST_SIZE: 123,
    semconv.RESPONSE_SIZE: 4567,
    semconv.THREAD_CPU_TIME: 0.00123,
}


def rows() -> Iterator[Row]:
    """Measure batches of calls that succeed, and of calls that fail with a recorded exception."""
    yield _compare("encode a span of 12 attributes", _calls(failing=False))
    yield _compare("encode a span with an exception", _calls(failing=True))


def _calls(*, failing: bool) -> Sequence[ReadableSpan]:
    finished = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource.create({"service.name": "benchmark"}))
    provider.add_span_processor(SimpleSpanProcessor(finished))
    tracer = provider.get_tracer(semconv.SCOPE_NAME, "1.0", schema_url=semconv.SCHEMA_URL)
    for _ in range(BATCH):
        span = tracer.start_span("tools/call echo", kind=SpanKind.CLIENT, attributes=ATTRIBUTES)
        if failing:
            span.set_attribute(semconv.ERROR_TYPE, semconv.ERROR_TOOL)
            span.record_exception(ValueError("no such file: notes.txt"))
        span.end()
    provider.shutdown()
    return finished.get_finished_spans()


def _compare(name: str, spans: Sequence[ReadableSpan]) -> Row:
    """Time both encoders in turn, so that whatever else the machine does falls on both."""
    ours, floor = [], []
    for _ in range(ROUNDS):
        ours.append(_microseconds(lambda: encode_spans(spans)) / len(spans))
        floor.append(_microseconds(lambda: official_encode_spans(spans).SerializeToString()) / len(spans))
    return Row(name, statistics.median(ours), statistics.median(floor), TARGET)


def _microseconds(work: Callable[[], object]) -> float:
    """Return the CPU time that `work` takes of this thread."""
    begin = time.thread_time_ns()
    work()
    return (time.thread_time_ns() - begin) / 1000
