"""Real stores of both generations, each with the test server behind it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from integration.harness import STDIO_SERVER

#: The service that every store of the tests has.
SERVICE = "lab"


#: A program's first lines: `store`, a context of mcpstore 2.x with the service connected.
#:
#: `MCPStore.setup_store()` does the same and starts a control reactor, because of which 2.3.0 hangs in about one of
#: 200 programs on a busy machine, with the agent or without. Tests that need it have to expect that (`attempts`).
SET_UP_A_STORE = f"""
import sys
from mcpstore import MCPStore
from mcpstore._rust import MCPStore as NativeStore

with open("mcp.json", "w") as config:
    config.write('{{"mcpServers": {{}}}}')
store = MCPStore(NativeStore.setup_with_options("mcp.json")).for_store()
store.add_service({{"name": "lab", "command": sys.executable, "args": [{str(STDIO_SERVER)!r}]}})
store.wait_service("lab")
"""


class WireLog:
    """What a test server received."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def messages(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text("utf-8").splitlines()]

    def methods(self) -> list[str]:
        """Return the methods of the requests, in their order, without the pings by which a store looks after itself."""
        requests = (message for message in self.messages() if "id" in message and "method" in message)
        return [request["method"] for request in requests if request["method"] != "ping"]

    def clear(self) -> None:
        self.path.write_text("")


def stdio_config(log: Path, name: str = SERVICE) -> dict[str, Any]:
    """Return the service configuration of a test server over stdio that keeps this log."""
    return {"name": name, "command": sys.executable, "args": [str(STDIO_SERVER), str(log)]}


class Lab:
    """A store with one connected service, and the faces through which the store can be used."""

    def __init__(self, folder: Path, config: dict[str, Any] | None = None) -> None:
        from mcpstore import MCPStore
        from mcpstore._rust import MCPStore as NativeStore

        self.wire = WireLog(folder / "wire.jsonl")
        definitions = folder / "mcp.json"
        definitions.write_text('{"mcpServers": {}}')
        self.store = MCPStore(NativeStore.setup_with_options(str(definitions)))
        self.store.load_from_config()
        self.context = self.store.for_store()
        self.context.add_service(config or stdio_config(self.wire.path))
        self.context.wait_service(SERVICE)
        self.instance_id = self.store.list_instances()[0]["instance_id"]

    @property
    def native(self) -> Any:
        """The store as mcpstore's native code has it."""
        return self.store._inner

    def session(self) -> Any:
        """Open a session of the store, with the service in it."""
        return self.store.create_session("s1").bind_service(self.instance_id)

    def close(self) -> None:
        """Have the server ended; the store itself cannot be closed."""
        for service in self.context.list_services():
            service.remove_service()


def run_async(folder: Path, scenario: Callable[[Any, Any], Awaitable[Any]], agent: str | None = None) -> Any:
    """Run a scenario with an `AsyncMCPStore` and a context of it in which the service is connected."""
    from mcpstore import AsyncMCPStore

    path = folder / "async.json"
    path.write_text('{"mcpServers": {}}')

    async def run() -> Any:
        store = AsyncMCPStore.setup_with_options(str(path))
        context = store.for_agent(agent) if agent else store.for_store()
        await context.add_service(stdio_config(folder / "wire.jsonl"))
        await context.wait_service(service_name=SERVICE)
        try:
            return await scenario(store, context)
        finally:
            await context.remove_service(service_name=SERVICE)
            # 2.3.0 can crash the interpreter of a program that ends right after its last await.
            await asyncio.sleep(0.05)

    return asyncio.run(run())


class Lab1:
    """A store of mcpstore 1.5.x with one service."""

    def __init__(self, folder: Path) -> None:
        from mcpstore import MCPStore

        self.wire = WireLog(folder / "wire.jsonl")
        config = folder / "mcp.json"
        config.write_text('{"mcpServers": {}}')
        self.store = MCPStore.setup_store(mcpjson_path=str(config))
        #: What `for_store()` gives, and the context behind it, which has the async faces.
        self.proxy = self.store.for_store()
        self.context = self.proxy._context
        self.proxy.add_service(stdio_config(self.wire.path))
        self.proxy.wait_service(SERVICE)

    def close(self) -> None:
        self.proxy.delete_service(SERVICE)
