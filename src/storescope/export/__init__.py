"""The local OTLP/JSON file, where telemetry goes unless an endpoint takes it."""

from storescope.export.file import FileMetricExporter, FileSpanExporter
from storescope.export.otlp_json import encode_metrics, encode_spans

__all__ = ["FileMetricExporter", "FileSpanExporter", "encode_metrics", "encode_spans"]
