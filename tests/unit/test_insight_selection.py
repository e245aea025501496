"""Which traces a query chooses, and what its table covers."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.recordings import batch, call, calls, span, write

from storescope import semconv
from storescope.insight import InsightError, Query, Recording, Source


def ask(path: Path, **query: object) -> Recording:
    return Recording(Source.at(path), Query(**query))


def numbers(recording: Recording) -> list[int]:
    return [int(trace_id, 16) for trace_id in recording.selection.traces]


def total_calls(recording: Recording) -> int:
    return sum(row.calls for row in recording.selection.statistics)


@pytest.fixture
def two_runs(tmp_path: Path) -> Path:
    """A program that ran twice: three calls, and an hour later two, the first of which is slow and fails."""
    write(tmp_path / "traces-1.jsonl", batch(*calls(3), instance="first"))
    slow = call("slow", trace=4, number=4, at=3600, took=2.0, error="timeout", message="no answer")
    write(
        tmp_path / "traces-2.jsonl",
        batch(slow, *calls(1, first=5, at=3603, service="web"), instance="second"),
    )
    return tmp_path


def test_without_options_it_is_the_newest_run(two_runs: Path) -> None:
    """Traces and table are those of the program that ran last; the others are counted."""
    recording = ask(two_runs)
    assert numbers(recording) == [5, 4]
    assert total_calls(recording) == 2
    assert [run.program for run in recording.selection.runs] == ["app.py"]
    assert recording.selection.other_runs == 1
    assert [file.name for file in recording.files()] == ["traces-2.jsonl"]


def test_last_chooses_the_newest_traces_of_all_runs(two_runs: Path) -> None:
    """The table then covers all runs."""
    recording = ask(two_runs, last=3)
    assert numbers(recording) == [5, 4, 3]
    assert total_calls(recording) == 5
    assert recording.selection.other_runs == 0


def test_slow_puts_the_longest_trace_first(two_runs: Path) -> None:
    """All traces are there, ordered by their length."""
    assert numbers(ask(two_runs, slow=True))[0] == 4
    assert len(numbers(ask(two_runs, slow=True))) == 5


def test_slow_and_last_order_the_newest(two_runs: Path) -> None:
    """Of the two newest traces the slower one is first."""
    assert numbers(ask(two_runs, slow=True, last=2)) == [4, 5]


def test_errors_chooses_traces_in_which_something_failed(two_runs: Path) -> None:
    """A failed child makes its trace one of them."""
    write(
        two_runs / "traces-3.jsonl",
        batch(
            span(trace=9, number=9, at=1),
            call(trace=9, number=10, parent=9, at=1, error="tool_error"),
            instance="x",
        ),
    )
    assert numbers(ask(two_runs, errors=True)) == [4, 9]


def test_no_errors_is_said(tmp_path: Path) -> None:
    """A recording without failures is no error of the command's, and nothing to show."""
    write(tmp_path / "traces-1.jsonl", batch(*calls(3)))
    with pytest.raises(InsightError, match="no errors in 3 traces"):
        ask(tmp_path, errors=True)


def test_a_service_is_an_mcp_service_or_a_program(two_runs: Path) -> None:
    """Either name chooses, and the table holds what belongs to it."""
    write(two_runs / "traces-3.jsonl", batch(*calls(1, first=7, at=9999), program="other.py", instance="o"))
    assert (numbers(ask(two_runs, service="web")), total_calls(ask(two_runs, service="web"))) == ([5], 1)
    assert numbers(ask(two_runs, service="app.py", last=9)) == [5, 4, 3, 2, 1]
    assert numbers(ask(two_runs, service="other.py")) == [7]


def test_an_unknown_service_is_answered_with_those_there_are(two_runs: Path) -> None:
    """The message names the programs and services that were recorded."""
    with pytest.raises(InsightError, match=r"(?s)'wbe'.*app\.py, lab, web"):
        ask(two_runs, service="wbe")


def test_processes_at_work_together_are_one_run(tmp_path: Path) -> None:
    """The workers of a program are shown together; its earlier run is another one."""
    write(tmp_path / "traces-1.jsonl", batch(*calls(5, first=1, at=0.0), instance="w1"))
    write(tmp_path / "traces-2.jsonl", batch(*calls(5, first=11, at=0.2), instance="w2"))
    write(tmp_path / "traces-3.jsonl", batch(*calls(5, first=21, at=-60.0), instance="yesterday"))
    recording = ask(tmp_path)
    (run,) = recording.selection.runs
    assert sorted(process.instance for process in run.processes) == ["w1", "w2"]
    assert total_calls(recording) == 10
    assert recording.selection.other_runs == 1


def test_rotated_files_of_a_process_are_one_run(tmp_path: Path) -> None:
    """A process that filled one file and went on in another is one process."""
    write(tmp_path / "traces-1.jsonl", batch(*calls(2, first=1, at=0.0)))
    write(tmp_path / "traces-2.jsonl", batch(*calls(2, first=5, at=50.0)))
    recording = ask(tmp_path)
    assert numbers(recording) == [6, 5, 2, 1]
    assert len(recording.files()) == 2


def test_processes_without_an_id_are_told_apart_by_their_files(tmp_path: Path) -> None:
    """Where the resource says nothing, a file is a process."""
    write(tmp_path / "traces-1.jsonl", batch(*calls(1, first=1, at=0.0), instance=None))
    write(tmp_path / "traces-2.jsonl", batch(*calls(1, first=5, at=50.0), instance=None))
    assert numbers(ask(tmp_path)) == [5]


def test_a_trace_across_programs_belongs_to_the_one_that_began_it(tmp_path: Path) -> None:
    """A server's span is shown inside the call of the program that made it."""
    write(tmp_path / "traces-1.jsonl", batch(call(trace=1, number=1, at=0.0, took=1.0)))
    served = span("tools/call echo", trace=1, number=2, parent=1, at=0.2, kind=2)
    write(tmp_path / "traces-2.jsonl", batch(served, program="server.py", instance="s"))
    recording = ask(tmp_path)
    assert recording.selection.runs[0].program == "app.py"
    (trace,) = recording.load(list(recording.selection.traces))
    assert [branch.span.process.program for branch in trace.branches] == ["app.py", "server.py"]


def test_as_many_traces_are_shown_as_there_is_room_for(tmp_path: Path) -> None:
    """The newest come first, errors take a line, and a trace larger than the room is shown all the same."""
    big = [span(trace=99, number=900 + n, at=100) for n in range(50)]
    write(tmp_path / "traces-1.jsonl", batch(*calls(10), *calls(10, first=20, at=5, error="timeout")))
    assert len(ask(tmp_path).first_traces(24)) == 14
    write(tmp_path / "traces-2.jsonl", batch(*big))
    assert [int(each, 16) for each in ask(tmp_path).first_traces(24)] == [99]


def test_an_attribute_may_be_anything(tmp_path: Path) -> None:
    """A list where a name belongs breaks nothing."""
    odd = span("odd", kind=3)
    odd["attributes"] = [
        {"key": name, "value": {"arrayValue": {"values": [{"intValue": "1"}]}}}
        for name in (
            semconv.SERVICE_NAME,
            semconv.MCP_METHOD_NAME,
            semconv.REQUEST_SIZE,
            semconv.CACHE_RESULT,
        )
    ]
    write(tmp_path / "traces-1.jsonl", batch(odd))
    assert total_calls(ask(tmp_path)) == 1
