"""mcpstore 1.5.x: a connection that is made again during an operation is told from the first."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from integration.harness import STDIO_SERVER, children
from integration.recording import Recorder
from integration.stores import Lab1

from storescope import semconv

pytestmark = pytest.mark.mcpstore1


def test_a_client_that_connects_again_respawns(
    lab1: Lab1, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The store's own client, connected twice within one call: `connect` first, then `respawn`."""
    from mcpstore.mcp.client import Client
    from mcpstore.mcp.client.transports import StdioTransport

    command = [str(STDIO_SERVER), str(tmp_path / "respawn.jsonl")]
    client = Client(StdioTransport(sys.executable, command, keep_alive=False))

    async def execute_twice(*args: Any, **kwargs: Any) -> Any:
        for _ in range(2):
            async with client:
                result = await client.call_tool_mcp("echo", {})
        return result

    recorder.uninstrument()
    module = "mcpstore.core.orchestrator.tool_execution"
    monkeypatch.setattr(f"{module}.ToolExecutionMixin.execute_tool_mcpstore", execute_twice)
    recorder.instrument()
    recorder.clear()
    lab1.context.call_tool("lab_echo", {})
    recorder.uninstrument()

    (call,) = [span for span in recorder.spans() if span.kind == "CLIENT"]
    parts = children(recorder.spans(), call)
    assert [part.attributes[semconv.PHASE] for part in parts] == ["connect", "call", "respawn", "call"]
    assert [part.name for part in parts] == ["connect", "call", "respawn", "call"]
