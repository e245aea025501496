"""How a pool opens its connections: MCP sessions (extra `storescope[mcp]`) and TCP, from a service config."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from storescope.core.connections.service_config import TCPService, read_service_config
from storescope.core.connections.tcp_connection import AsyncTCPConnection, TCPConnection


def connector_for(service_config: Mapping[str, Any]) -> Callable[[], Any]:
    """Return what opens a connection to a service, for use from any thread.

    `{"url": …}` and `{"command": …}` open an `MCPConnection`, `{"host": …, "port": …}` a `TCPConnection`.
    A connector blocks until the connection is open, at most `connect_timeout` seconds (30) and the time that a
    child process needs to end, and raises ConnectFailed with the reason.

    Raises TypeError or ValueError for a config that cannot be understood, and ImportError where it asks for MCP
    and the SDK is not installed.
    """
    service = read_service_config(service_config)
    if isinstance(service, TCPService):
        return lambda: TCPConnection.open(service)
    with _extra():
        from storescope.core.connections.mcp_threads import MCPConnection

    return lambda: MCPConnection.open(service)


def async_connector_for(service_config: Mapping[str, Any]) -> Callable[[], Awaitable[Any]]:
    """Return what opens a connection to a service on the event loop that awaits it; otherwise as `connector_for`."""
    service = read_service_config(service_config)
    if isinstance(service, TCPService):
        return lambda: AsyncTCPConnection.open(service)
    with _extra():
        from storescope.core.connections.mcp_connection import AsyncMCPConnection

    return lambda: AsyncMCPConnection.open(service)


@contextlib.contextmanager
def _extra() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ImportError(
            "a service_config with 'url' or 'command' needs the MCP SDK, 1.24 or newer: "
            f"pip install 'storescope[mcp]' ({error})"
        ) from error
