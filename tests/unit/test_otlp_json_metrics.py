"""The encoder's metrics agree with the official ones."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics as official_metrics
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk import metrics as sdk_metrics
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader, MetricsData
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.trace import TracerProvider
from unit.otlp_messages import RESOURCE, assert_same, attribute_sets

from storescope.export.otlp_json import encode_metrics


def temporality(of: AggregationTemporality) -> dict[type, AggregationTemporality]:
    return dict.fromkeys(
        (
            sdk_metrics.Counter,
            sdk_metrics.UpDownCounter,
            sdk_metrics.Histogram,
            sdk_metrics.ObservableCounter,
            sdk_metrics.ObservableUpDownCounter,
            sdk_metrics.ObservableGauge,
        ),
        of,
    )


@pytest.fixture(params=[AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA])
def reader(request: pytest.FixtureRequest) -> InMemoryMetricReader:
    return InMemoryMetricReader(preferred_temporality=temporality(request.param))


@pytest.fixture
def meter(reader: InMemoryMetricReader) -> Iterator[sdk_metrics.Meter]:
    provider = sdk_metrics.MeterProvider(
        [reader],
        RESOURCE,
        exemplar_filter=sdk_metrics.AlwaysOnExemplarFilter(),
        views=[
            View(instrument_name="exponential", aggregation=ExponentialBucketHistogramAggregation()),
            View(instrument_name="filtered", attribute_keys={"kept"}),
        ],
    )
    yield provider.get_meter("storescope", "1.0", "https://example.org/scope", {"a": "b"})
    provider.shutdown()


def collect(reader: InMemoryMetricReader) -> MetricsData:
    data = reader.get_metrics_data()
    assert data is not None
    return data


def test_every_kind_of_metric_is_what_the_official_encoder_makes_of_it(
    reader: InMemoryMetricReader, meter: sdk_metrics.Meter
) -> None:
    """Sums, gauges and histograms, delta and cumulative, with exemplars inside and outside a span."""

    def observe(_: CallbackOptions) -> list[Observation]:
        return [Observation(1.5, {"cpu": "0"}), Observation(-3, {"cpu": "1"}), Observation(math.inf)]

    meter.create_observable_gauge("load", [observe], "1", "how busy")
    meter.create_observable_counter("faults", [observe])
    meter.create_observable_up_down_counter("threads", [observe])
    gauge = meter.create_gauge("temperature", "Cel")
    counter = meter.create_counter("filtered", "{call}", "calls")
    up_down = meter.create_up_down_counter("active")
    histogram = meter.create_histogram("duration", "s", explicit_bucket_boundaries_advisory=[0.1, 1.0])
    exponential = meter.create_histogram("exponential", "s")
    with TracerProvider().get_tracer("test").start_as_current_span("tools/call echo"):
        counter.add(3, {"kept": "yes", "left": "out"})
        gauge.set(21.5)
        for value in (0.05, 0, 5, 1e9, -2.5):
            histogram.record(value, {"tool": "回声"})
            exponential.record(value, {"tool": "echo"})
    counter.add(2.5, {"kept": "yes", "left": "too"})
    up_down.add(-(2**63))
    data = collect(reader)
    text = encode_metrics(data)
    assert_same(text, official_metrics(data))
    assert {
        metric["name"] for metric in json.loads(text)["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
    } == {*("load", "faults", "threads", "temperature", "filtered", "active", "duration", "exponential")}


@given(measured=st.lists(st.tuples(st.floats(0, 1e300) | st.integers(0, 2**62), attribute_sets), min_size=1))
@settings(max_examples=25, deadline=None)
def test_any_measurement_is_what_the_official_encoder_makes_of_it(
    measured: list[tuple[float, dict[str, Any]]],
) -> None:
    """Histograms of any numbers under any attributes come out as in protobuf."""
    reader = InMemoryMetricReader()
    views = [View(instrument_name="exponential", aggregation=ExponentialBucketHistogramAggregation())]
    provider = sdk_metrics.MeterProvider([reader], RESOURCE, views=views)
    meter = provider.get_meter("storescope")
    for name in ("explicit", "exponential"):
        histogram = meter.create_histogram(name)
        for value, attributes in measured:
            histogram.record(value, attributes)
    data = collect(reader)
    provider.shutdown()
    assert_same(encode_metrics(data), official_metrics(data))


def test_a_value_that_64_bits_cannot_hold_is_a_double(
    reader: InMemoryMetricReader, meter: sdk_metrics.Meter
) -> None:
    """A counter beyond the protocol's integers keeps its size, if not its last digits."""
    meter.create_counter("huge").add(2**64)
    metrics = json.loads(encode_metrics(collect(reader)))["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
    assert metrics[0]["sum"]["dataPoints"][0]["asDouble"] == 2.0**64
