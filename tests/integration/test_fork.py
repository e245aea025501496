"""Forked children that build a store of their own, with either generation of mcpstore."""

from __future__ import annotations

import json
import os

import pytest
from integration.harness import STDIO_SERVER, Runner

pytestmark = [
    pytest.mark.anystore,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
]

#: Imports the store in the parent, and builds and uses one in the child alone.
PROGRAM = f"""
import json, os, sys, warnings

warnings.simplefilter("ignore")
from mcpstore import MCPStore

with open("mcp.json", "w") as config:
    config.write('{{"mcpServers": {{}}}}')

def use_a_store():
    try:
        from mcpstore._rust import MCPStore as NativeStore
        store = MCPStore(NativeStore.setup_with_options("mcp.json")).for_store()
    except ImportError:
        store = MCPStore.setup_store(mcpjson_path="mcp.json").for_store()
    store.add_service({{"name": "lab", "command": sys.executable, "args": [{str(STDIO_SERVER)!r}]}})
    store.wait_service("lab")
    store.call_tool("lab_echo", {{"text": "hi"}})

child = os.fork()
if child == 0:
    use_a_store()
    sys.exit()
print(json.dumps([child, os.waitpid(child, 0)[1]]))
"""


def test_a_childs_own_store_is_observed(runner: Runner) -> None:
    """Its spans and its records are exported, under the program's name, from the child's own files."""
    finished = runner.run(PROGRAM, timeout=20, attempts=3).check()

    child, status = json.loads(finished.stdout)
    assert status == 0
    (call,) = [span for span in finished.spans() if span.kind == "CLIENT"]
    assert (call.name, call.status) == ("tools/call echo", "UNSET")
    assert call.resource["service.name"] == "app"
    assert [path for path in finished.directory.glob("traces-*.jsonl") if f"-{child}-" in path.name]
    assert [
        point.count for point in finished.points() if point.metric == "mcp.client.operation.duration"
    ] == [1]
