"""The tracer and the instruments that all operations share."""

from __future__ import annotations

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Histogram, InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import storescope
from storescope import semconv
from storescope.instrumentation.telemetry import Telemetry


def test_spans_say_which_conventions_they_follow() -> None:
    """Their scope is storescope in its version, with the schema of the MCP conventions."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    Telemetry(provider, MeterProvider(shutdown_on_exit=False)).tracer.start_span("call").end()

    (span,) = exporter.get_finished_spans()
    scope = span.instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.version) == ("storescope", storescope.__version__)
    assert scope.schema_url == "https://opentelemetry.io/schemas/1.41.1"


def test_durations_are_histograms_of_the_conventions() -> None:
    """Seconds, in the buckets that the MCP conventions ask for, under the same schema."""
    reader = InMemoryMetricReader()
    telemetry = Telemetry(
        TracerProvider(shutdown_on_exit=False), MeterProvider([reader], shutdown_on_exit=False)
    )
    for histogram in (telemetry.requests, telemetry.sessions, telemetry.operations):
        histogram.record(0.03)

    data = reader.get_metrics_data()
    assert data is not None
    (scope,) = data.resource_metrics[0].scope_metrics
    assert scope.schema_url == "https://opentelemetry.io/schemas/1.41.1"
    assert {metric.name for metric in scope.metrics} == {
        semconv.CLIENT_OPERATION_DURATION,
        semconv.CLIENT_SESSION_DURATION,
        semconv.OPERATION_DURATION,
    }
    for metric in scope.metrics:
        assert metric.unit == "s"
        assert metric.description
        assert isinstance(metric.data, Histogram)
        (point,) = metric.data.data_points
        assert tuple(point.explicit_bounds) == (
            *(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300),
        )
