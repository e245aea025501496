"""Reading OTLP/JSON: every layout of it, and whatever else a file may hold."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from unit.recordings import CLIENT, DAY, batch, call, calls, span, write

from storescope.export import FileSpanExporter
from storescope.insight import InsightError, Source
from storescope.insight.model import Span
from storescope.insight.source import MAX_NOTES
from storescope.settings import Settings


def read(path: Path) -> tuple[list[Span], list[str]]:
    source = Source.at(path)
    return [found for _, found in source.spans()], [str(note) for note in source.notes]


def test_a_span_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Ids, times, kind, status and attributes of every type arrive."""
    written = call(
        "echo", trace=0xAB, number=0xCD, parent=0xEF, at=1.5, took=0.25, error="timeout", message="late"
    )
    written["attributes"].append({"key": "list", "value": {"arrayValue": {"values": [{"boolValue": True}]}}})
    written["attributes"].append({"key": "map", "value": {"kvlistValue": {"values": []}}})
    written["attributes"].append({"key": "nan", "value": {"doubleValue": "NaN"}})
    (found,), notes = read(write(tmp_path / "a.jsonl", batch(written, program="agent.py", instance="7")))
    assert (found.trace_id, found.span_id, found.parent_id) == (
        f"{0xAB:032x}",
        f"{0xCD:016x}",
        f"{0xEF:016x}",
    )
    assert (found.start, found.duration) == (DAY * 10**9 + 1_500_000_000, 250_000_000)
    assert (found.name, found.kind, found.failed, found.message) == (
        "tools/call echo",
        "CLIENT",
        True,
        "late",
    )
    assert (found.process.program, found.process.instance) == ("agent.py", "7")
    assert found.attributes["storescope.request.size"] == 10
    assert (found.attributes["list"], found.attributes["map"], found.attributes["nan"]) == ([True], {}, "NaN")
    assert notes == []


def test_what_the_agents_exporter_writes_is_read(tmp_path: Path) -> None:
    """A span of the real SDK, through the real file exporter, comes back."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.trace import SpanKind

    provider = TracerProvider(resource=Resource.create({"service.name": "agent.py"}))
    provider.add_span_processor(SimpleSpanProcessor(FileSpanExporter(Settings(directory=tmp_path))))
    tracer = provider.get_tracer("storescope")
    with (
        tracer.start_as_current_span("outer"),
        tracer.start_as_current_span("call", kind=SpanKind.CLIENT) as inner,
    ):
        inner.set_attribute("storescope.service.name", "notes")
    provider.shutdown()
    found, notes = read(tmp_path)
    assert [(each.name, each.kind) for each in found] == [("call", "CLIENT"), ("outer", "INTERNAL")]
    assert found[0].parent_id == found[1].span_id
    assert found[0].attributes == {"storescope.service.name": "notes"}
    assert found[0].process.program == "agent.py"
    assert notes == []


LAYOUTS = {
    "lines": lambda *objects: "".join(json.dumps(each) + "\n" for each in objects),
    "no newline at the end": lambda *objects: "\n".join(json.dumps(each) for each in objects),
    "blank lines": lambda *objects: "\n\n".join(json.dumps(each) for each in objects) + "\n \n",
    "Windows lines": lambda *objects: "\r\n".join(json.dumps(each) for each in objects),
    "pretty-printed": lambda *objects: "\n".join(json.dumps(each, indent=2) for each in objects),
    "all on one line": lambda *objects: " ".join(json.dumps(each) for each in objects),
    "byte order mark": lambda *objects: "\ufeff" + "\n".join(json.dumps(each) for each in objects),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_of_otlp_json_is_read(tmp_path: Path, layout: str) -> None:
    """One object a line, or several in any other layout, give the same spans."""
    file = tmp_path / "some.json"
    file.write_bytes(LAYOUTS[layout](batch(call(number=1)), batch(call(number=2), call(number=3))).encode())
    found, notes = read(file)
    assert [int(each.span_id, 16) for each in found] == [1, 2, 3]
    assert notes == []


def test_a_folder_is_its_trace_files(tmp_path: Path) -> None:
    """All files of traces in a folder are read, those of metrics are not."""
    write(tmp_path / "traces-1.jsonl", batch(call(number=1)))
    write(tmp_path / "traces-2.jsonl", batch(call(number=2)))
    write(tmp_path / "metrics-1.jsonl", {"resourceMetrics": []})
    found, notes = read(tmp_path)
    assert len(found) == 2
    assert notes == []


def test_a_torn_last_line_costs_itself_alone(tmp_path: Path) -> None:
    """Half a line at the end, as a killed program leaves it, is skipped and said."""
    file = write(
        tmp_path / "traces-1.jsonl",
        batch(call(number=1)),
        batch(call(number=2)),
        tail='{"resourceSpans":[{"res',
    )
    found, notes = read(file)
    assert len(found) == 2
    (note,) = notes
    assert note.startswith(f"{file}, line 3: an incomplete line")


def test_a_torn_line_in_the_middle_costs_itself_alone(tmp_path: Path) -> None:
    """The lines around half a line are read, and its number is named."""
    whole = json.dumps(batch(call(number=1)))
    file = tmp_path / "traces-1.jsonl"
    file.write_text(f"{whole}\n{whole[:200]}\n{json.dumps(batch(call(number=2)))}\n")
    found, notes = read(file)
    assert len(found) == 2
    (note,) = notes
    assert note.startswith(f"{file}, line 2: a torn line")


def test_bytes_that_are_not_utf_8_do_not_stop_reading(tmp_path: Path) -> None:
    """A name with broken bytes is read with replacement characters."""
    file = write(tmp_path / "traces-1.jsonl", batch(span("n@me")))
    file.write_bytes(file.read_bytes().replace(b"@", b"\xff"))
    (found,), _ = read(file)
    assert found.name == "n\ufffdme"


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"traceId": "xyz", "spanId": "1"}, "id 'xyz' is not hexadecimal"),
        ({"traceId": "0" * 32, "spanId": "1"}, "an id is zero"),
        ({"traceId": "1"}, "no 'spanId'"),
        (5, "not an object"),
        ({"startTimeUnixNano": "soon"}, "soon"),
        ({"startTimeUnixNano": str(2**64)}, "startTimeUnixNano is 18446744073709551616"),
        ({"kind": 99}, "index out of range"),
        ({"attributes": [{"key": "a", "value": {"intValue": "x"}}]}, "'x'"),
    ],
)
def test_a_malformed_span_costs_itself_alone(tmp_path: Path, part: object, words: str) -> None:
    """The spans beside it are read, and the note says what was wrong."""
    broken = span() | part if isinstance(part, dict) and "traceId" not in part else part
    file = write(tmp_path / "traces-1.jsonl", batch(span(number=1), broken, span(number=2)))
    found, notes = read(file)
    assert len(found) == 2
    (note,) = notes
    assert "a malformed span" in note
    assert words in note


@pytest.mark.parametrize(
    "document",
    [
        {"resourceSpans": "text"},
        {"resourceSpans": [7]},
        {"resourceSpans": [{"scopeSpans": {}}]},
        {"resourceSpans": [{"scopeSpans": [{"spans": 3}]}]},
        {"resourceSpans": [{"resource": {"attributes": 1}, "scopeSpans": [{"spans": [1]}]}]},
    ],
)
def test_a_malformed_document_is_said(tmp_path: Path, document: dict[str, object]) -> None:
    """OTLP of a wrong shape is an error in plain words."""
    with pytest.raises(InsightError, match=r"line 1: (a )?malformed"):
        read(write(tmp_path / "traces-1.jsonl", document))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty: nothing was recorded in it"),
        (b" \n\n", "holds no spans"),
        (b"hello\nworld\n", "line 1: not JSON"),
        (bytes(range(256)) * 8, "line 1: not JSON"),
        (b'{"resourceSpans":[{"scopeSp', "line 1: an incomplete line"),
        (b'{"resourceMetrics":[]}\n', "line 1: metrics, not spans"),
        (b'{"resourceLogs":[]}\n', "line 1: logs, not spans"),
        (b'{"data":[{"traceID":"1"}]}', "line 1: not OTLP (it looks like Jaeger's own JSON)"),
        (b'{"name":"x"}\n', 'line 1: JSON, but not OTLP (it has no "resourceSpans")'),
        (b"[1, 2]\n3\n", "line 1: JSON, but not OTLP"),
        (b'{"resourceSpans":[]}\n', "holds no spans: nothing was recorded in it"),
        (b"[" * 200_000, "line 1: JSON that cannot be decoded"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_without_spans_says_what_it_is_and_what_to_do(
    tmp_path: Path, content: bytes, words: str
) -> None:
    """The message names the file, the line where there is one, and what to give instead."""
    file = tmp_path / "some.file"
    file.write_bytes(content)
    with pytest.raises(InsightError) as raised:
        read(file)
    first, second = str(raised.value).split("\n")
    assert first.startswith(str(file))
    assert words in first
    assert second.startswith("Give a traces-*.jsonl file")


def test_a_path_that_is_not_there_says_how_to_record(tmp_path: Path) -> None:
    """A missing file and a folder without traces tell how to get some."""
    (tmp_path / "metrics-1.jsonl").write_text("{}")
    for path, words in ((tmp_path / "none", "does not exist"), (tmp_path, "holds no traces-*.jsonl file")):
        with pytest.raises(InsightError, match=r"opentelemetry-instrument python app\.py") as raised:
            Source.at(path)
        assert words in str(raised.value)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    """What is neither file nor folder is said to be so, at once."""
    import os

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InsightError, match="neither a file nor a folder"):
        Source.at(tmp_path / "pipe")


def test_a_file_that_vanishes_leaves_the_others_readable(tmp_path: Path) -> None:
    """A file that rotation removes meanwhile becomes a note."""
    write(tmp_path / "traces-1.jsonl", batch(call(number=1)))
    write(tmp_path / "traces-2.jsonl", batch(call(number=2)))
    source = Source.at(tmp_path)
    (tmp_path / "traces-1.jsonl").unlink()
    assert len(list(source.spans())) == 1
    assert "cannot be read" in str(source.notes[0])


def test_notes_are_kept_in_bounds(tmp_path: Path) -> None:
    """Of a thousand broken lines the first are named and the rest counted."""
    file = write(tmp_path / "traces-1.jsonl", batch(*calls(1)), tail="{broken\n" * 1000)
    source = Source.at(file)
    list(source.spans())
    assert len(source.notes) == MAX_NOTES
    assert source.notes_left_off == 1000 - MAX_NOTES


def test_chosen_lines_are_read_again_without_the_others(tmp_path: Path) -> None:
    """The place of a span leads back to its line."""
    file = write(
        tmp_path / "traces-1.jsonl", *(batch(span(f"s{n}", number=n, kind=CLIENT)) for n in range(1, 4))
    )
    source = Source.at(file)
    places = {found.name: place for place, found in source.spans()}
    assert [found.name for found in source.spans_at([places["s2"], places["s3"]])] == ["s2", "s3"]
