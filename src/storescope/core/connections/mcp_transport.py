"""The MCP SDK's own transports (1.24 and later, 2.x), with an eye on how they end."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

import mcp
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

from storescope.core.connections.service_config import HTTPService, StdioService

if TYPE_CHECKING:
    from typing_extensions import Self

#: How much of what a server last wrote to its standard error is kept and told: bytes, lines.
_KEPT_BYTES = 4096
_TOLD_LINES = 3
_FIRST_ERROR_STATUS = 400


class Observed:
    """The stream of messages from a server, which tells when it ends; everything else is the SDK's stream's."""

    def __init__(self, stream: Any, ended: Callable[[], None]) -> None:
        self._stream = stream
        self._ended = ended

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __aiter__(self) -> Observed:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._stream.__anext__()
        except BaseException:  # its end, its failure, or the cancellation of the session that reads it
            self._ended()
            raise

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        result: bool | None = await self._stream.__aexit__(exc_type, exc, traceback)
        return result


class StderrTail:
    """The last that a server wrote to its standard error: kept for error messages, never printed."""

    def __init__(self) -> None:
        self._kept = b""
        self._read, write = os.pipe()
        os.set_blocking(self._read, False)
        self.writer = os.fdopen(write, "w")
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._read, self._receive)

    def __str__(self) -> str:
        lines = self._kept.decode("utf-8", "replace").strip().splitlines()
        return "; ".join(line.strip() for line in lines[-_TOLD_LINES:])

    def _receive(self) -> bool:
        """Keep what there is, and tell whether there may be more."""
        try:
            piece = os.read(self._read, 65536)
        except BlockingIOError:
            return False
        self._kept = (self._kept + piece)[-_KEPT_BYTES:]
        if not piece:
            self._loop.remove_reader(self._read)
        return bool(piece)

    def close(self) -> None:
        """Take what is still in the pipe, a bounded number of times as the server may go on, and let go of it."""
        self.writer.close()
        for _ in range(16):
            if not self._receive():
                break
        self._loop.remove_reader(self._read)
        os.close(self._read)


@contextlib.asynccontextmanager
async def open_stdio(service: StdioService, notes: Notes) -> AsyncIterator[tuple[Any, Any]]:
    """Start a server and connect to its standard input and output; it is ended on the way out."""
    parameters = mcp.StdioServerParameters(
        command=service.command,
        args=list(service.args),
        env=dict(service.env) or None,
        cwd=service.cwd,
    )
    tail = StderrTail()
    notes.stderr = tail
    try:
        async with stdio_client(parameters, errlog=tail.writer) as (read, write):
            tail.writer.close()  # the server has its own; the end of that is the end of the pipe
            yield Observed(read, notes.ended), write
    finally:
        tail.close()


@contextlib.asynccontextmanager
async def open_http(service: HTTPService, notes: Notes) -> AsyncIterator[tuple[Any, Any]]:
    """Prepare to send requests to a server; nothing is sent yet."""

    async def look(response: Any) -> None:
        # A session that the server has forgotten is answered with 404 (MCP specification), by some with 400: the
        # SDK 2.x makes an ordinary error of either, after which the session would be used again.
        if response.request.method == "POST" and response.status_code >= _FIRST_ERROR_STATUS:
            notes.refusal = f"HTTP status {response.status_code}"

    async with create_mcp_http_client(headers=dict(service.headers) or None) as client:
        client.event_hooks["response"].append(look)
        async with streamable_http_client(service.url, http_client=client) as streams:
            read, write = streams[:2]  # 1.x has a third item
            yield Observed(read, notes.ended), write


class Notes:
    """What a transport tells of itself: `ended()` is called at the end of its messages."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self.ended = ended
        #: How the server refused a request, in a way after which the session is better opened anew.
        self.refusal = ""
        self.stderr: StderrTail | str = ""
