"""OTLP/JSON text, written straight from the SDK's objects: no protobuf message is built on the way.

The format is the OTLP specification's: camelCase members, ids in hex, 64-bit integers as decimal strings,
enums as integers, bytes in base64, members that have their default value left out. The text is ASCII.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.metrics import export as sdk

from storescope.export.json_values import (
    INT_LIMIT,
    Batch,
    attributes_member,
    double,
    double_member,
    int_member,
    list_member,
    long_member,
    quote,
    text_member,
)

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import Exemplar
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.trace import Link, SpanContext, Status

# `SpanFlags` of the protocol: that it is known whether the parent is remote, and that it is.
_REMOTE_KNOWN: Final = 0x100
_REMOTE: Final = 0x200

# Templates, because `%` writes an id twice as fast as a format string does.
_SPAN: Final = (
    '{"traceId":"%032x","spanId":"%016x",%s"flags":%d,"name":%s,"kind":%d,'
    '"startTimeUnixNano":"%d","endTimeUnixNano":"%d",%s"status":%s}'
)
_EVENT: Final = '{"timeUnixNano":"%d",%s"name":%s}'
_LINK: Final = '{"traceId":"%032x","spanId":"%016x",%s"flags":%d}'
_EXEMPLAR: Final = '{%s%s"timeUnixNano":"%d"}'
_POINT: Final = '{%s%s%s"timeUnixNano":"%d"}'


def encode_spans(spans: Iterable[ReadableSpan], resource_extra: Mapping[str, Any] | None = None) -> str:
    """Write one `{"resourceSpans": [...]}` object on one line.

    `resource_extra` is added to the attributes of every resource. A span that cannot be encoded is left out
    with a warning; the others are kept.
    """
    batch = Batch("Spans", resource_extra)
    for span in spans:
        batch.add(span.resource, span.instrumentation_scope, _span, span)
    return batch.json()


def encode_metrics(metrics_data: sdk.MetricsData, resource_extra: Mapping[str, Any] | None = None) -> str:
    """Write one `{"resourceMetrics": [...]}` object on one line, on the terms of `encode_spans`."""
    batch = Batch("Metrics", resource_extra)
    for of_resource in metrics_data.resource_metrics:
        for of_scope in of_resource.scope_metrics:
            for metric in of_scope.metrics:
                batch.add(of_resource.resource, of_scope.scope, _metric, metric)
    return batch.json()


def _span(span: ReadableSpan) -> str:
    context, parent = span.context, span.parent
    origin = text_member("traceState", context.trace_state.to_header()) if context.trace_state else ""
    if parent is not None:
        origin += f'"parentSpanId":"{parent.span_id:016x}",'
    content = _attributes(span)
    content += list_member("events", map(_event, span.events))
    content += int_member("droppedEventsCount", span.dropped_events)
    content += list_member("links", map(_link, span.links))
    content += int_member("droppedLinksCount", span.dropped_links)
    return _SPAN % (
        context.trace_id,
        context.span_id,
        origin,
        _flags(parent),
        quote(span.name),
        span.kind.value + 1,  # the SDK counts from INTERNAL = 0, the protocol from 1
        span.start_time or 0,
        span.end_time or 0,
        content,
        _status(span.status),
    )


def _flags(context: SpanContext | None) -> int:
    return _REMOTE_KNOWN | _REMOTE if context is not None and context.is_remote else _REMOTE_KNOWN


def _status(status: Status) -> str:
    code = int_member("code", status.status_code.value)
    return f"{{{(text_member('message', status.description) + code)[:-1]}}}"


def _event(event: Event) -> str:
    return _EVENT % (event.timestamp, _attributes(event), quote(event.name))


def _link(link: Link) -> str:
    context = link.context
    return _LINK % (context.trace_id, context.span_id, _attributes(link), _flags(context))


def _attributes(of: ReadableSpan | Event | Link) -> str:
    return attributes_member(of.attributes) + int_member("droppedAttributesCount", of.dropped_attributes)


def _metric(metric: sdk.Metric) -> str:
    name, encode_point = _DATA[type(metric.data)]
    about = text_member("description", metric.description) + text_member("unit", metric.unit)
    kind = int_member("aggregationTemporality", getattr(metric.data, "aggregation_temporality", 0))
    if getattr(metric.data, "is_monotonic", False):
        kind += '"isMonotonic":true,'
    points = ",".join(map(encode_point, metric.data.data_points))
    return f'{{{about}"name":{quote(metric.name)},"{name}":{{{kind}"dataPoints":[{points}]}}}}'


def _gauge_point(point: sdk.NumberDataPoint) -> str:
    return _point(point, _number(point.value))


def _sum_point(point: sdk.NumberDataPoint) -> str:
    return _point(point, long_member("startTimeUnixNano", point.start_time_unix_nano) + _number(point.value))


def _histogram_point(point: sdk.HistogramDataPoint) -> str:
    counts = list_member("bucketCounts", (f'"{count:d}"' for count in point.bucket_counts))
    bounds = list_member("explicitBounds", map(double, point.explicit_bounds))
    return _point(point, _distribution(point) + counts + bounds)


def _exponential_point(point: sdk.ExponentialHistogramDataPoint) -> str:
    scale = int_member("scale", point.scale) + long_member("zeroCount", point.zero_count)
    buckets = _buckets("positive", point.positive) + _buckets("negative", point.negative)
    return _point(point, _distribution(point) + scale + buckets + int_member("flags", point.flags))


def _point(point: sdk.DataPointT, value: str) -> str:
    exemplars = list_member("exemplars", map(_exemplar, point.exemplars))
    return _POINT % (attributes_member(point.attributes), value, exemplars, point.time_unix_nano)


def _distribution(point: sdk.HistogramDataPoint | sdk.ExponentialHistogramDataPoint) -> str:
    return (
        long_member("startTimeUnixNano", point.start_time_unix_nano)
        + long_member("count", point.count)
        + double_member("sum", point.sum)
        + double_member("min", point.min)
        + double_member("max", point.max)
    )


def _buckets(name: str, buckets: sdk.Buckets) -> str:
    counts = list_member("bucketCounts", (f'"{count:d}"' for count in buckets.bucket_counts))
    return f'"{name}":{{{(int_member("offset", buckets.offset) + counts)[:-1]}}},' if counts else ""


def _number(value: float) -> str:
    if isinstance(value, int) and -INT_LIMIT <= value < INT_LIMIT:
        return f'"asInt":"{value:d}",'
    return double_member("asDouble", value)


def _exemplar(exemplar: Exemplar) -> str:
    ids = ""
    if exemplar.span_id is not None and exemplar.trace_id is not None:
        ids = f'"traceId":"{exemplar.trace_id:032x}","spanId":"{exemplar.span_id:016x}",'
    attributes = attributes_member(exemplar.filtered_attributes, "filteredAttributes")
    return _EXEMPLAR % (_number(exemplar.value) + ids, attributes, exemplar.time_unix_nano)


#: The member that holds a metric's data, and how one of its points is written.
_DATA: Final[dict[type, tuple[str, Callable[[Any], str]]]] = {
    sdk.Gauge: ("gauge", _gauge_point),
    sdk.Sum: ("sum", _sum_point),
    sdk.Histogram: ("histogram", _histogram_point),
    sdk.ExponentialHistogram: ("exponentialHistogram", _exponential_point),
}
