"""mcpstore 1.5.x: a server behind a URL that has gone away."""

from __future__ import annotations

import socket

import pytest
from integration.harness import Runner

pytestmark = pytest.mark.mcpstore1

PROGRAM = """
import sys
import mcpstore
from storescope.stores.mcpstore_v1 import adapter

with open("mcp.json", "w") as config:
    config.write('{"mcpServers": {}}')
store = mcpstore.MCPStore.setup_store(mcpjson_path="mcp.json").for_store()
store.add_service({"name": "gone", "url": sys.argv[1]})
print(store.wait_service("gone", timeout=1)["success"])
"""


def test_a_dead_server_is_named_by_what_could_not_connect(runner: Runner) -> None:
    """Not by how anyio brought the failure about: type and message are those of the connection."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/mcp"
    finished = runner.run(PROGRAM, url).check()
    assert finished.stdout.split()[-1] == "False"
    connects = [span for span in finished.spans() if span.name == "connect"]
    assert {span.attributes["error.type"] for span in connects} == {"ConnectError"}
    assert all("connection" in span.message.lower() for span in connects)
