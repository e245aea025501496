"""What the agent has to say is heard, although a store takes the application's log handlers away."""

from __future__ import annotations

import pytest
from integration.harness import STDIO_SERVER, Runner
from receivers import http_receiver

pytestmark = pytest.mark.anystore

PROGRAM = """
import sys
import mcpstore

with open("mcp.json", "w") as config:
    config.write('{"mcpServers": {}}')
if hasattr(mcpstore, "FileConfig"):
    store = mcpstore.MCPStore.setup_store(mcpstore.FileConfig(path="mcp.json")).for_store()
else:
    store = mcpstore.MCPStore.setup_store(mcpjson_path="mcp.json").for_store()
store.add_service({"name": "lab", "command": sys.executable, "args": [sys.argv[1], "wire.jsonl"]})
store.wait_service("lab")
store.call_tool("lab_echo", {"text": "hello"})
"""


def test_a_refused_signal_is_told_about_beside_a_store(runner: Runner) -> None:
    """A receiver without a place for metrics: one line on stderr says where they go."""
    with http_receiver(lambda signal, earlier: 404 if signal == "metrics" else 200) as receiver:
        env = {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        }
        finished = runner.run(PROGRAM, str(STDIO_SERVER), env=env, timeout=30, attempts=3)
    assert "tools/call echo" in receiver.spans
    (line,) = [line for line in finished.stderr.splitlines() if "takes no metrics" in line]
    assert "metrics-" in line


def test_lost_telemetry_is_told_about_beside_a_store(runner: Runner) -> None:
    """A folder that cannot be written: one line names it, and the program is none the worse."""
    runner.folder.joinpath("file").write_text("in the way")
    env = {"STORESCOPE_DIR": str(runner.folder / "file" / "folder")}
    finished = runner.run(PROGRAM, str(STDIO_SERVER), env=env, timeout=30, attempts=3)
    lines = [line for line in finished.stderr.splitlines() if "storescope" in line or "MeterProvider" in line]
    assert len(lines) == 1
    assert str(runner.folder / "file") in lines[0]
