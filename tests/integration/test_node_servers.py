"""Servers of npm that people use, through the observed store of whichever generation is installed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from integration.harness import Runner, Span

pytestmark = pytest.mark.anystore

#: Names the folder whose `node_modules` has the servers, and promises that they are there: `.ci/run` sets it.
FOLDER = os.environ.get("STORESCOPE_TEST_NODE_FOLDER")

#: Opens a store of either generation, adds the server of the command line, and makes the given calls.
PROGRAM = """
import json, sys
from mcpstore import MCPStore

with open("mcp.json", "w") as config:
    config.write('{"mcpServers": {}}')
try:
    from mcpstore import FileConfig
    store = MCPStore.setup_store(FileConfig(path="mcp.json")).for_store()
except ImportError:
    store = MCPStore.setup_store(mcpjson_path="mcp.json").for_store()
command, calls = json.loads(sys.argv[1]), json.loads(sys.argv[2])
store.add_service({"name": "npm", "command": command[0], "args": command[1:]})
store.wait_service("npm")
print(json.dumps([len(store.list_tools()), [str(store.call_tool(*call)) for call in calls]]))
"""


@pytest.fixture(scope="module")
def node() -> tuple[str, Path]:
    """The node program and the folder of the servers; a test is skipped where nobody promised them."""
    if FOLDER is None:
        pytest.skip("STORESCOPE_TEST_NODE_FOLDER does not name a folder with npm's MCP servers")
    program = shutil.which("node")
    assert program is not None, "there is no node here"
    return program, Path(FOLDER)


def serve(
    runner: Runner, node: tuple[str, Path], server: str, *arguments: str, calls: Any
) -> tuple[Any, list[Span]]:

    program, folder = node
    script = folder / "node_modules" / "@modelcontextprotocol" / server / "dist" / "index.js"
    command = [program, str(script), *arguments]
    finished = runner.run(PROGRAM, json.dumps(command), json.dumps(calls), timeout=20, attempts=3).check()
    return json.loads(finished.stdout), [span for span in finished.spans() if span.kind == "CLIENT"]


def test_the_filesystem_server(runner: Runner, node: tuple[str, Path], tmp_path: Path) -> None:
    """Npm's server-filesystem: write, read, list, and a read that it refuses, each a span with its sizes."""
    folder = tmp_path / "files"
    folder.mkdir()
    calls = [
        ["npm_write_file", {"path": str(folder / "a.txt"), "content": "hello from a file"}],
        ["npm_read_file", {"path": str(folder / "a.txt")}],
        ["npm_list_directory", {"path": str(folder)}],
        ["npm_read_file", {"path": "/etc/passwd"}],
    ]
    (tools, results), spans = serve(runner, node, "server-filesystem", str(folder), calls=calls)

    assert tools > 5
    assert (folder / "a.txt").read_text() == "hello from a file"
    assert "hello from a file" in results[1]
    assert "a.txt" in results[2]
    assert [(span.name, span.attributes.get("error.type")) for span in spans] == [
        ("tools/call write_file", None),
        ("tools/call read_file", None),
        ("tools/call list_directory", None),
        ("tools/call read_file", "tool_error"),
    ]
    for span in spans:
        assert span.attributes["storescope.service.name"] == "npm"
        assert span.attributes["network.transport"] == "pipe"
    assert spans[1].attributes["storescope.response.size"] == len("hello from a file")
    assert "hello from a file" not in str(spans)


def test_the_everything_server(runner: Runner, node: tuple[str, Path]) -> None:
    """Npm's server-everything: what its tools return arrives, and each call is a span."""
    calls = [["npm_echo", {"message": "hi"}], ["npm_get-sum", {"a": 2, "b": 3}]]
    (tools, results), spans = serve(runner, node, "server-everything", calls=calls)

    assert tools > 5
    assert "hi" in results[0]
    assert "5" in results[1]
    assert [(span.name, span.status) for span in spans] == [
        ("tools/call echo", "UNSET"),
        ("tools/call get-sum", "UNSET"),
    ]
