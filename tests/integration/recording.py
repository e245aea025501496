"""The agent in this process, recording into memory."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from integration.harness import Point, Span, from_reader, from_sdk
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

from storescope.instrumentation import StorescopeInstrumentor


class Recorder:
    """Instruments on entry and undoes it on exit; in between it hands out what was recorded."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meter_provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.tracer = self.tracer_provider.get_tracer("application")

    def __enter__(self) -> Recorder:  # noqa: PYI034 - Self needs 3.11
        self.instrument()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.uninstrument()
        self.tracer_provider.shutdown()
        self.meter_provider.shutdown()

    def instrument(self) -> None:
        StorescopeInstrumentor().instrument(
            skip_dep_check=True, tracer_provider=self.tracer_provider, meter_provider=self.meter_provider
        )

    def uninstrument(self) -> None:
        if StorescopeInstrumentor().is_instrumented_by_opentelemetry:
            StorescopeInstrumentor().uninstrument()

    def clear(self) -> None:
        """Forget the spans so far."""
        self._exporter.clear()

    def spans(self) -> list[Span]:
        """Return the spans that have ended, in the order of their ends."""
        return [from_sdk(span) for span in self._exporter.get_finished_spans()]

    def span(self) -> Span:
        """Return the only span that has ended since `clear()`."""
        (span,) = self.spans()
        return span

    def points(self, metric: str | None = None, **attributes: Any) -> list[Point]:
        """Return the histogram series of a metric that have these attributes (`__` stands for a dot)."""
        wanted = {name.replace("__", "."): value for name, value in attributes.items()}
        return [
            point
            for point in from_reader(self._reader.get_metrics_data())
            if metric in (None, point.metric) and wanted.items() <= point.attributes.items()
        ]

    def numbers(self, metric: str) -> list[NumberDataPoint]:
        """Return the series of a metric that is a number."""
        data = self._reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for found in scope.metrics
            if found.name == metric
            for point in found.data.data_points
        ]

    def count(self, metric: str, **attributes: Any) -> int:
        """Return how many values those series have."""
        return sum(point.count for point in self.points(metric, **attributes))
