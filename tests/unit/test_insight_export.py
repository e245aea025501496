"""The export: one OTLP object, whole, each span once, as OpenTelemetry itself reads it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from unit.recordings import batch, call, calls, span, write

from storescope.insight import Query, Recording, Source


def export(path: Path, **query: Any) -> dict[str, Any]:
    return Recording(Source.at(path), Query(**query)).export()


def read_as_opentelemetry_does(document: dict[str, Any]) -> TracesData:
    """Parse OTLP/JSON strictly. Protocol buffers want ids in base 64, the one thing that OTLP/JSON has otherwise."""

    def rewrite(value: Any) -> Any:
        if isinstance(value, list):
            return [rewrite(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {
            key: base64.b64encode(bytes.fromhex(item)).decode()
            if key in {"traceId", "spanId", "parentSpanId"}
            else rewrite(item)
            for key, item in value.items()
        }

    return json_format.ParseDict(rewrite(document), TracesData())


def test_the_export_is_valid_otlp(tmp_path: Path) -> None:
    """OpenTelemetry's own messages take it without an unknown field."""
    write(tmp_path / "traces-1.jsonl", batch(call(trace=1, number=1, error="timeout", message="late")))
    data = read_as_opentelemetry_does(export(tmp_path))
    (found,) = data.resource_spans[0].scope_spans[0].spans
    assert found.name == "tools/call echo"
    assert found.status.message == "late"


def test_batches_become_one_object_by_resource(tmp_path: Path) -> None:
    """Spans of one process stand together, those of another beside, each span once and untouched."""
    first = write(tmp_path / "traces-1.jsonl", batch(*calls(2)), batch(*calls(2, first=3)), batch(*calls(4)))
    write(tmp_path / "traces-2.jsonl", batch(*calls(1, first=9), program="other.py", instance="2"))
    document = export(tmp_path, last=100)
    sizes = [[len(scope["spans"]) for scope in each["scopeSpans"]] for each in document["resourceSpans"]]
    assert sizes == [[4], [1]]
    original = json.loads(first.read_text().splitlines()[0])["resourceSpans"][0]
    assert document["resourceSpans"][0]["resource"] == original["resource"]
    assert document["resourceSpans"][0]["scopeSpans"][0]["spans"][:2] == original["scopeSpans"][0]["spans"]


def test_only_chosen_traces_are_exported_and_those_whole(tmp_path: Path) -> None:
    """A trace that stands in two files comes whole, its neighbours stay."""
    write(tmp_path / "traces-1.jsonl", batch(*calls(3), call(trace=7, number=7, parent=8, at=9)))
    write(tmp_path / "traces-2.jsonl", batch(span(trace=7, number=8, at=9, took=1)))
    document = export(tmp_path, last=1)
    spans = [each["spanId"] for part in document["resourceSpans"] for each in part["scopeSpans"][0]["spans"]]
    assert sorted(int(each, 16) for each in spans) == [7, 8]


def test_an_export_can_be_viewed(tmp_path: Path) -> None:
    """What was exported is read back with the same numbers."""
    write(tmp_path / "traces-1.jsonl", batch(*calls(5)))
    exported = write(tmp_path / "out.json", export(tmp_path))
    before, after = (Recording(Source.at(path), Query()).selection for path in (tmp_path, exported))
    assert after.statistics == before.statistics
    assert list(after.traces) == list(before.traces)
