"""Batches of telemetry of a chosen size, and what the tests read back from the files."""

from __future__ import annotations

import json
from pathlib import Path

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

KIB = 1024


def batch(name: str = "tools/call echo", size: int = 0) -> list[ReadableSpan]:
    """Make a batch whose line is about `size` bytes long, or as short as it can be."""
    context = SpanContext(1, 2, is_remote=False)
    attributes = {"filler": "x" * max(0, size - 360)}
    resource = Resource({"service.name": "shop"})
    return [ReadableSpan(name, context, None, resource, attributes, start_time=1, end_time=2)]


def names_in(*files: Path) -> list[str]:
    """Read the name of every span in the files; each of their lines must be whole."""
    lines = [json.loads(line) for file in files for line in file.read_text("ascii").splitlines()]
    return [line["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"] for line in lines]


def files_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def total_size(folder: Path) -> int:
    return sum(file.stat().st_size for file in files_in(folder))


def some_metrics() -> MetricsData:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    provider.get_meter("test").create_counter("calls").add(1)
    data = reader.get_metrics_data()
    provider.shutdown()
    assert data is not None
    return data
