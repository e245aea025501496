"""A store of MCP services over HTTP: `Shop().call("lab.echo", {"text": "hi"})` calls the tool `echo` of `lab`."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any
from urllib.request import Request, urlopen

PROTOCOL_VERSION = "2025-06-18"


class UnknownService(LookupError):
    """No service has that name."""


class RequestRefused(Exception):
    """A server answered with a JSON-RPC error: its code and message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Services:
    """What both faces stand on: services by name, and one HTTP request for each message."""

    def __init__(self) -> None:
        self._urls: dict[str, str] = {}
        self._initialized: set[str] = set()
        self._numbers = itertools.count(1)

    def url_of(self, service: str) -> str | None:
        """Return where a service is; None where there is none of this name."""
        return self._urls.get(service)

    def _add(self, name: str, url: str) -> None:
        self._urls[name] = url
        self._initialized.discard(name)

    def _call(self, tool: str, arguments: dict[str, Any] | None) -> dict[str, Any]:
        service, _, name = tool.partition(".")
        if service not in self._urls:
            raise UnknownService(f"no service is called {service!r}")
        if service not in self._initialized:
            self._initialize(service)
        return self._request(service, "tools/call", {"name": name, "arguments": arguments or {}})

    def _initialize(self, service: str) -> None:
        client = {"name": "shop-store", "version": "1.0"}
        params = {"protocolVersion": PROTOCOL_VERSION, "capabilities": {}, "clientInfo": client}
        self._request(service, "initialize", params)
        self._initialized.add(service)

    def _request(self, service: str, method: str, params: dict[str, Any]) -> dict[str, Any]:
        message = {"jsonrpc": "2.0", "id": next(self._numbers), "method": method, "params": params}
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        request = Request(self._urls[service], json.dumps(message).encode(), headers)
        with urlopen(request, timeout=30) as response:
            reply = json.load(response)
        if "error" in reply:
            raise RequestRefused(reply["error"]["code"], reply["error"]["message"])
        result: dict[str, Any] = reply["result"]
        return result


class Shop(_Services):
    """A store for programs without an event loop."""

    def add_service(self, name: str, url: str) -> None:
        """Make a service known; it is connected to when a tool of it is called."""
        self._add(name, url)

    def call(self, tool: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
        """Call a tool, `service.tool`, and return its result as the server sent it."""
        return self._call(tool, arguments)


class AsyncShop(_Services):
    """The same store for programs with one."""

    async def add_service(self, name: str, url: str) -> None:
        """Make a service known; it is connected to when a tool of it is called."""
        self._add(name, url)

    async def call(self, tool: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
        """Call a tool, `service.tool`, and return its result as the server sent it."""
        return await asyncio.to_thread(self._call, tool, arguments)
