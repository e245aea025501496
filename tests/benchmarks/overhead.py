"""What the agent adds to a call that does nothing, against the same span and histogram made by hand.

Runs in a process of its own: `python -m tests.benchmarks.overhead` prints its rows as JSON lines.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind

from storescope import semconv
from storescope.instrumentation import StorescopeInstrumentor
from storescope.settings import process_settings
from tests.benchmarks import noop_store
from tests.benchmarks.row import Row

CALLS = 1500
ROUNDS = 31
ALIAS = "lab_echo"
ARGUMENTS = {"text": "hello"}
KEY = b"k" * 32

METRIC_ATTRIBUTES = {
    semconv.MCP_METHOD_NAME: "tools/call",
    semconv.SERVICE_NAME: "lab",
    semconv.NETWORK_TRANSPORT: "pipe",
    semconv.MCP_PROTOCOL_VERSION: "2025-11-25",
    semconv.GEN_AI_OPERATION_NAME: "execute_tool",
    semconv.GEN_AI_TOOL_NAME: "echo",
}
SPAN_ATTRIBUTES = {**METRIC_ATTRIBUTES, semconv.STORE_SCOPE: "store", semconv.TOOL_ALIAS: ALIAS}

Clock = Callable[[], float]
Providers = tuple[TracerProvider | None, MeterProvider | None]


class _Recording(SpanProcessor):
    """Takes spans and keeps none: what is measured is the making of them."""


def rows() -> Iterator[Row]:
    """Measure in a fresh interpreter: the store that does nothing takes the place of the real one."""
    command = [sys.executable, "-m", "tests.benchmarks.overhead"]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    for line in printed.splitlines():
        yield Row(**json.loads(line))


def _measure() -> Iterator[Row]:
    noop_store.install()
    yield _row("call, recording (thread CPU)", _recording(), time.thread_time, 1.15)
    yield _row("call, live batch processor (process CPU)", _batching(), time.process_time, 1.15)
    yield _row("call, sampled out (thread CPU)", _sampled_out(), time.thread_time, 1.1)
    yield _row("call, no SDK set up (thread CPU)", (None, None), time.thread_time, 1.0)
    os.environ["OTEL_SDK_DISABLED"] = "true"
    yield _row("call, SDK disabled (thread CPU)", (None, None), time.thread_time, 1.0)


def _recording() -> Providers:
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(_Recording())
    return tracer_provider, MeterProvider([InMemoryMetricReader()])


def _batching() -> Providers:
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class Discard(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(BatchSpanProcessor(Discard(), max_queue_size=1_000_000))
    return tracer_provider, MeterProvider([InMemoryMetricReader()])


def _sampled_out() -> Providers:
    return TracerProvider(sampler=ALWAYS_OFF), MeterProvider([InMemoryMetricReader()])


def _row(name: str, providers: Providers, clock: Clock, target: float) -> Row:
    """Measure ours and the floor in turn, so that whatever else the machine does falls on both."""
    by_hand = _by_hand(*providers)  # of the call as it is before the agent comes
    process_settings.cache_clear()
    instrumentor = StorescopeInstrumentor()
    instrumentor.instrument(skip_dep_check=True, tracer_provider=providers[0], meter_provider=providers[1])
    context = noop_store.MCPStore.setup_with_options().for_store()

    def ours() -> object:
        return context.call_tool(ALIAS, ARGUMENTS)

    times: dict[Callable[[], object], list[float]] = {ours: [], by_hand: []}
    for call in (*times, *times):
        _microseconds(call, clock)
    for _ in range(ROUNDS):
        for call, measured in times.items():
            measured.append(_microseconds(call, clock))
    instrumentor.uninstrument()
    return Row(name, statistics.median(times[ours]), statistics.median(times[by_hand]), target)


def _by_hand(
    tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None
) -> Callable[[], object]:
    """Return the same call, observed by the code that one would write around it."""
    tracer = trace.get_tracer("by hand", "1", tracer_provider)
    histogram = metrics.get_meter("by hand", "1", meter_provider).create_histogram(
        semconv.CLIENT_OPERATION_DURATION,
        unit="s",
        explicit_bucket_boundaries_advisory=semconv.DURATION_BUCKETS,
    )
    call_tool = noop_store.ScopeContext.call_tool
    context = noop_store.ScopeContext()

    def call() -> object:
        with tracer.start_as_current_span(
            "tools/call echo", kind=SpanKind.CLIENT, attributes=SPAN_ATTRIBUTES
        ) as span:
            cpu, started = time.thread_time(), time.perf_counter()
            result = call_tool(context, ALIAS, ARGUMENTS)
            elapsed = time.perf_counter() - started
            span.set_attribute(semconv.THREAD_CPU_TIME, time.thread_time() - cpu)
            span.set_attribute(semconv.REQUEST_SIZE, len("text") + len(ARGUMENTS["text"]))
            span.set_attribute(semconv.RESPONSE_SIZE, len(result["content"][0]["text"]))
            if span.is_recording():
                identity = json.dumps(["lab", "echo", ARGUMENTS], sort_keys=True).encode()
                digest = blake2b(identity, digest_size=16, key=KEY).hexdigest()
                span.set_attribute(semconv.CALL_DIGEST, digest)
            histogram.record(elapsed, METRIC_ATTRIBUTES)
        return result

    return call


def _microseconds(call: Callable[[], object], clock: Clock) -> float:
    begin = clock()
    for _ in range(CALLS):
        call()
    return (clock() - begin) / CALLS * 1e6


if __name__ == "__main__":
    for row in _measure():
        print(json.dumps(dataclasses.asdict(row)))
