"""The example gives the spans that it documents, with either generation of mcpstore."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from integration.harness import ROOT, Runner, children

pytestmark = pytest.mark.anystore

QUICKSTART = ROOT / "examples" / "quickstart.py"
#: Each call of the program, and how it ends with mcpstore 2.x and with 1.5.
CALLS = {
    "tools/call read_note": (None, None),
    "tools/call summarize": (None, None),
    "tools/call publish": ("tool_error", "tool_error"),
    "tools/call notes_translate": ("internal", "tool_not_found"),
}


def test_the_quickstart_gives_the_documented_spans(runner: Runner) -> None:
    """Under the launcher and otherwise unchanged, each call is one span: works, slow, fails, does not exist."""
    finished = runner.run(QUICKSTART, env={"STORESCOPE_VERBOSE": "1"}, timeout=20, attempts=3).check()

    old = version("mcpstore").startswith("1.")
    spans = finished.spans()
    calls = [span for span in spans if span.kind == "CLIENT"]
    ends = {span.name: span.attributes.get("error.type") for span in calls}
    assert ends == {name: types[old] for name, types in CALLS.items()}
    assert len(calls) == len(CALLS)
    assert calls[1].seconds > 0.4 > calls[0].seconds
    operations = [span for span in spans if "storescope.phase" not in span.attributes]
    names = [span.name for span in operations if span.kind == "INTERNAL"]
    assert names == ["setup_store", "add_service notes", "wait_service notes", "list_tools"]
    assert {
        point.count for point in finished.points() if point.metric == "mcp.client.operation.duration"
    } == {1}
    assert f"storescope: {len(operations)} operations, 2 errors;" in finished.stderr
    if old:
        assert [span.name for span in children(spans, calls[0])] == ["connect", "list", "call"]


def test_the_quickstart_runs_without_the_agent(runner: Runner) -> None:
    """The program needs nothing of storescope but its server."""
    finished = runner.run(QUICKSTART, launcher=False, timeout=20, attempts=3).check()

    assert finished.stdout.startswith("tools: 5\n")
    assert finished.spans() == []
