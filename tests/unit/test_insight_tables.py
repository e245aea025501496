"""The table: exact numbers per tool, operation and phase."""

from __future__ import annotations

import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from unit.recordings import SERVER, Json, batch, call, calls, span, write

from storescope import semconv
from storescope.insight import Query, Recording, Source
from storescope.insight.tables import Statistics, percentile

MS = 1_000_000


def table(tmp_path: Path, *spans: Json) -> dict[tuple[str, str, str], Statistics]:
    recording = Recording(Source.at(write(tmp_path / "traces-1.jsonl", batch(*spans))), Query())
    return {
        (row.subject.kind, row.subject.name, row.subject.cache_result): row
        for row in recording.selection.statistics
    }


@given(st.lists(st.integers(0, 10**12), min_size=1), st.floats(0.01, 1.0))
def test_a_percentile_is_a_duration_that_occurred(values: list[int], share: float) -> None:
    """At least that share of all values is not longer, and the next shorter value covers less."""
    ordered = sorted(values)
    found = percentile(ordered, share)
    assert found in values
    assert sum(value <= found for value in values) >= math.ceil(share * len(values) - 1e-9)
    assert sum(value < found for value in values) < share * len(values) + 1e-9


def test_a_tool_has_calls_errors_percentiles_and_bytes(tmp_path: Path) -> None:
    """A hundred calls of 1 to 100 ms have their p50 at 50 ms and their p95 at 95 ms."""
    spans = [
        call("echo", trace=n, number=n, took=n / 1000, error="timeout" if n > 98 else None)
        for n in range(1, 101)
    ]
    row = table(tmp_path, *spans)["tool", "echo", ""]
    assert (row.calls, row.errors, row.subject.service) == (100, 2, "lab")
    assert (row.p50, row.p95, row.max) == (50 * MS, 95 * MS, 100 * MS)
    assert row.total == 5050 * MS
    assert (row.sent, row.received) == (1000, 10_000)


def test_what_is_not_a_tool_call_has_a_row_of_its_own(tmp_path: Path) -> None:
    """Other requests, store operations and phases are told apart; servers' and users' spans are no rows."""
    rows = table(
        tmp_path,
        call("echo", number=1),
        span("resources/read", number=2, kind=3, **{semconv.MCP_METHOD_NAME: "resources/read"}),
        span(
            "get hi", number=3, **{semconv.MCP_METHOD_NAME: "prompts/get", semconv.GEN_AI_PROMPT_NAME: "hi"}
        ),
        span(
            "add_service lab",
            number=4,
            **{semconv.STORE_OPERATION: "add_service", semconv.SERVICE_NAME: "lab"},
        ),
        span("connect", number=5, parent=1, **{semconv.PHASE: "connect"}),
        span("tools/call echo", number=6, kind=SERVER, **{semconv.MCP_METHOD_NAME: "tools/call"}),
        span("GET /", number=7),
    )
    assert sorted(rows) == [
        ("operation", "add_service", ""),
        ("operation", "prompts/get hi", ""),
        ("operation", "resources/read", ""),
        ("phase", "connect", ""),
        ("tool", "echo", ""),
    ]
    assert rows["operation", "add_service", ""].sent is None


def test_answers_from_a_cache_are_no_calls_of_the_tool(tmp_path: Path) -> None:
    """A tool's percentiles stay those of the tool: hits are counted beside, misses are calls."""
    cached = {"storescope__cache__result": "hit"}
    missed = {"storescope__cache__result": "miss"}
    rows = table(
        tmp_path,
        *calls(2, took=0.1, **missed),
        *calls(8, first=3, took=0.00001, **cached),
    )
    assert (rows["tool", "echo", ""].calls, rows["tool", "echo", ""].p50) == (2, 100 * MS)
    assert rows["tool", "echo", "hit"].calls == 8


def test_a_span_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    """A batch marked as unconfirmed repeats spans that are there already."""
    once = batch(*calls(3))
    again = batch(*calls(3), unconfirmed=True)
    recording = Recording(Source.at(write(tmp_path / "traces-1.jsonl", once, again)), Query())
    (row,) = recording.selection.statistics
    assert row.calls == 3


def test_tools_of_one_name_are_told_apart_by_service(tmp_path: Path) -> None:
    """Two services that offer the same tool have a row each."""
    file = write(
        tmp_path / "traces-1.jsonl",
        batch(call("read", service="a", number=1), call("read", service="b", number=2)),
    )
    rows = Recording(Source.at(file), Query()).selection.statistics
    assert sorted(row.subject.service for row in rows) == ["a", "b"]
