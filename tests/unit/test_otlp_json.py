"""The encoder agrees with the official one, and loses nothing that the official one would choke on."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as official_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics.export import AggregationTemporality
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from unit.otlp_messages import RESOURCE, as_message, assert_same, attribute_sets, names, nested, texts

from storescope.export import json_values
from storescope.export.otlp_json import encode_spans


class Recorder:
    """A real tracer provider, and the spans that came out of it."""

    def __init__(self, resource: Resource = RESOURCE, limits: SpanLimits | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self._provider = TracerProvider(resource=resource, span_limits=limits)
        self._provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self._provider.get_tracer("storescope", "1.0", "https://example.org/scope", {"a": "b"})

    def spans(self) -> Sequence[ReadableSpan]:
        self._provider.shutdown()
        return self._exporter.get_finished_spans()


def attributes_of(text: str) -> dict[str, Any]:
    """Read the attributes of the first span, as their OTLP values."""
    span = json.loads(text)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    return {attribute["key"]: attribute["value"] for attribute in span.get("attributes", ())}


def raw_span(attributes: Mapping[str, Any], **overrides: Any) -> ReadableSpan:
    """Make a span whose attributes the SDK has not cleaned, as another span processor may hand it on."""
    context = SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1))
    given: dict[str, Any] = {"resource": RESOURCE, "start_time": 1, "end_time": 2, **overrides}
    return ReadableSpan("raw", context, attributes=attributes, **given)


def remote(trace_state: TraceState | None = None) -> SpanContext:
    return SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(1), trace_state=trace_state)


contexts = st.builds(
    SpanContext,
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    is_remote=st.booleans(),
    trace_flags=st.just(TraceFlags(1)),
    trace_state=st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True), st.just("v"), max_size=3
    ).map(lambda entries: TraceState(list(entries.items()))),
)


@given(
    name=names,
    kind=st.sampled_from(SpanKind),
    attributes=attribute_sets,
    events=st.lists(st.tuples(names, attribute_sets, st.integers(1, 2**63)), max_size=3),
    links=st.lists(st.builds(Link, contexts, attribute_sets), max_size=3),
    status=st.sampled_from([Status(), Status(StatusCode.OK)])
    | st.builds(Status, st.just(StatusCode.ERROR), texts),
    parent=st.none() | contexts,
)
@settings(max_examples=100, deadline=None)
def test_any_span_is_what_the_official_encoder_makes_of_it(
    name: str,
    kind: SpanKind,
    attributes: dict[str, Any],
    events: list[tuple[str, dict[str, Any], int]],
    links: list[Link],
    status: Status,
    parent: SpanContext | None,
) -> None:
    """Names, attributes of every type, events, links, status and parents come out as in protobuf."""
    recorder = Recorder(limits=SpanLimits(max_events=2, max_links=2, max_span_attributes=4))
    context = trace.set_span_in_context(trace.NonRecordingSpan(parent)) if parent else None
    span = recorder.tracer.start_span(name, context, kind, attributes, links)
    for event in events:
        span.add_event(*event)
    span.set_status(status)
    span.end()
    spans = recorder.spans()
    assert_same(encode_spans(spans), official_spans(spans))


@given(st.dictionaries(names, nested, max_size=4))
@settings(max_examples=100, deadline=None)
def test_any_value_is_what_the_official_encoder_makes_of_it(attributes: dict[str, Any]) -> None:
    """Lists and mappings of anything, and bytes, come out as in protobuf."""
    spans = [raw_span(attributes)]
    assert_same(encode_spans(spans), official_spans(spans))


def test_a_trace_of_parents_and_failures_is_what_the_official_encoder_makes_of_it() -> None:
    """Nested spans, a recorded exception and a remote parent with trace state come out as in protobuf."""
    recorder = Recorder()
    caller = trace.set_span_in_context(trace.NonRecordingSpan(remote(TraceState([("vendor", "1")]))))
    with (
        pytest.raises(ValueError, match="no such tool"),
        recorder.tracer.start_as_current_span("serve", caller, SpanKind.SERVER),
        recorder.tracer.start_as_current_span("tools/call echo", kind=SpanKind.CLIENT),
    ):
        raise ValueError("no such tool: 回声\n\u2028'\"\\")
    spans = recorder.spans()
    assert_same(encode_spans(spans), official_spans(spans))


def test_the_text_is_the_specification_s_format_on_one_line() -> None:
    """Ids are hex, 64-bit integers strings, enums integers, and the line holds no line break of any kind."""
    span = raw_span(
        {"text": "a\nb\u2028c", "whole": 1, "part": 0.5, "yes": True, "list": ("x",), "bytes": b"\x00\xff"},
        kind=SpanKind.CLIENT,
        parent=remote(),
        status=Status(StatusCode.ERROR, "boom"),
        instrumentation_scope=InstrumentationScope("lib", "2"),
        resource=Resource({"service.name": "shop"}),
    )
    assert encode_spans([span]) == (
        '{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},'
        '"scopeSpans":[{"scope":{"version":"2","name":"lib"},"spans":['
        '{"traceId":"00000000000000000000000000000001","spanId":"0000000000000002",'
        '"parentSpanId":"0000000000000def","flags":768,"name":"raw","kind":3,'
        '"startTimeUnixNano":"1","endTimeUnixNano":"2","attributes":['
        '{"key":"text","value":{"stringValue":"a\\nb\\u2028c"}},{"key":"whole","value":{"intValue":"1"}},'
        '{"key":"part","value":{"doubleValue":0.5}},{"key":"yes","value":{"boolValue":true}},'
        '{"key":"list","value":{"arrayValue":{"values":[{"stringValue":"x"}]}}},'
        '{"key":"bytes","value":{"bytesValue":"AP8="}}],'
        '"status":{"message":"boom","code":2}}]}]}]}'
    )


def test_spans_come_grouped_by_resource_and_scope() -> None:
    """Equal resources and scopes are written once, whether or not they are the same object."""
    scopes = [InstrumentationScope(name) for name in ("one", "two", "one")]
    spans = [
        raw_span({}, resource=Resource({"service.name": "shop"}), instrumentation_scope=scope)
        for scope in scopes
    ]
    spans.append(raw_span({}, resource=Resource({"service.name": "other"})))
    assert_same(encode_spans(spans), official_spans(spans))
    shop, other = json.loads(encode_spans(spans))["resourceSpans"]
    assert [len(group["spans"]) for group in shop["scopeSpans"]] == [2, 1]
    assert [len(group["spans"]) for group in other["scopeSpans"]] == [1]


def test_extra_attributes_are_added_to_every_resource() -> None:
    """`resource_extra` stands beside the resource's own attributes and replaces one of the same key."""
    text = encode_spans([raw_span({})], {"process.pid": 8, "storescope.export.unconfirmed": True})
    resource = json.loads(text)["resourceSpans"][0]["resource"]
    assert resource["attributes"] == [
        {"key": "service.name", "value": {"stringValue": "shop"}},
        {"key": "process.pid", "value": {"intValue": "8"}},
        {"key": "storescope.export.unconfirmed", "value": {"boolValue": True}},
    ]


class Unprintable:
    """Raises wherever it is looked at."""

    def __str__(self) -> str:
        raise RuntimeError("not to be seen")

    __repr__ = __str__


class Broken(Sequence[int]):
    """Says that it has items and refuses to give them."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: Any) -> Any:
        raise RuntimeError("not to be seen")

    def __str__(self) -> str:
        return "broken"


class Text(str):
    """A string with a type of its own."""

    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ("\ud800 caf\u00e9 \U0001f600", {"stringValue": "\ufffd caf\u00e9 \U0001f600"}),
        (Text("own type"), {"stringValue": "own type"}),
        (math.nan, {"doubleValue": "NaN"}),
        (math.inf, {"doubleValue": "Infinity"}),
        (-math.inf, {"doubleValue": "-Infinity"}),
        (2**63 - 1, {"intValue": "9223372036854775807"}),
        (2**63, {"stringValue": "9223372036854775808"}),
        (-(2**63) - 1, {"stringValue": "-9223372036854775809"}),
        (SpanKind.CLIENT, {"stringValue": "SpanKind.CLIENT"}),
        (StatusCode, {"stringValue": "<enum 'StatusCode'>"}),
        (AggregationTemporality.DELTA, {"intValue": "1"}),
        (None, {}),
        ([None, [], {}], {"arrayValue": {"values": [{}, {"arrayValue": {}}, {"kvlistValue": {}}]}}),
        ({1: "x"}, {"kvlistValue": {"values": [{"key": "1", "value": {"stringValue": "x"}}]}}),
        (bytearray(b"ab"), {"bytesValue": "YWI="}),
        (Unprintable(), {"stringValue": "<Unprintable>"}),
        ([Unprintable()], {"arrayValue": {"values": [{"stringValue": "<Unprintable>"}]}}),
        (Broken(), {"stringValue": "broken"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_otlp_has_no_type_for_is_kept_as_text(value: object, encoded: dict[str, Any]) -> None:
    """Odd values come out as the nearest that every reader takes, and never raise."""
    text = encode_spans([raw_span({"odd": value, "next": "kept"})])
    assert attributes_of(text) == {"odd": encoded, "next": {"stringValue": "kept"}}
    text.encode("ascii")


def test_an_integer_too_long_to_print_does_not_lose_the_span() -> None:
    """Python refuses to print integers of more than 4,300 digits; the attributes around one are kept."""
    attributes = attributes_of(encode_spans([raw_span({"long": 10**5000, "next": 1})]))
    assert attributes["next"] == {"intValue": "1"}
    assert "stringValue" in attributes["long"]


def tower(depth: int) -> Any:
    value: Any = "bottom"
    for level in range(depth):
        value = [value] if level % 2 else {"down": value}
    return value


def endless() -> list[Any]:
    value: list[Any] = ["around"]
    value.append(value)
    return value


@pytest.mark.parametrize("value", [tower(60), tower(50_000), endless()], ids=["60", "50000", "endless"])
def test_a_value_nested_too_deep_is_cut_to_what_protobuf_reads(value: object) -> None:
    """However deep a value goes, the batch stays readable."""
    text = encode_spans([raw_span({"deep": value}), raw_span({})])
    message = as_message(json.loads(text), ExportTraceServiceRequest)
    again = ExportTraceServiceRequest.FromString(message.SerializeToString())
    assert len(again.resource_spans[0].scope_spans[0].spans) == 2


def test_a_surrogate_in_any_string_of_a_span_is_replaced() -> None:
    """Names, keys and descriptions are made readable like values."""
    span = raw_span(
        {"key\udfff": "v"},
        status=Status(StatusCode.ERROR, "why\ud800"),
        instrumentation_scope=InstrumentationScope("scope\ud800"),
        resource=Resource({"service.name": "shop\ud800"}),
    )
    span._name = "name\ud800"
    read = json.dumps(json.loads(encode_spans([span])), ensure_ascii=False)
    assert read.count("\ufffd") == 5
    read.encode()


def test_a_span_that_cannot_be_encoded_is_left_out_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The rest of its batch is kept, and the warning counts what is missing and says why."""
    good, bad = raw_span({"n": 1}), raw_span({}, kind="client")
    with caplog.at_level(logging.WARNING):
        text = encode_spans([bad, good, bad])
    assert attributes_of(text) == {"n": {"intValue": "1"}}
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "2 spans could not be encoded"
    ]


def test_attribute_keys_without_end_do_not_fill_the_memory() -> None:
    """The encoded keys that are kept are bounded in number and length, and stay right beyond the bound."""
    keys = [f"key-{n}" for n in range(2 * json_values.MAX_KEYS)] + ["k" * 10_000]
    for _ in range(2):
        assert list(attributes_of(encode_spans([raw_span(dict.fromkeys(keys, "v"))]))) == keys
    kept = json_values._STRING
    assert len(kept) <= json_values.MAX_KEYS
    assert max(map(len, kept)) <= json_values.MAX_KEY_LENGTH
