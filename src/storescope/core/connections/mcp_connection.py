"""One MCP session on an event loop, living in a task of its own: it can be opened, used and closed from any task."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import anyio
import mcp

from storescope.core import checks, forks
from storescope.core.connections import mcp_transport
from storescope.core.connections.mcp_transport import Notes
from storescope.core.connections.service_config import HTTPService, StdioService
from storescope.core.errors import Closed, ConnectFailed, ConnectionLost, DeadlineExceeded, WrongEventLoop
from storescope.core.store import Arguments

Value = TypeVar("Value")

#: Seconds that a ping may take, unless the caller says otherwise.
PING_TIMEOUT = 5.0
#: Seconds that `close()` waits for a server that does not end. The SDK kills a child process before that.
_CLOSE_TIMEOUT = 8.0
#: Seconds that a failing call waits for the session's end, which knows the reason.
_REASON_TIMEOUT = 0.5
#: Seconds without any answer after which a server is asked over HTTP whether it is there while calls are in flight;
#: doubled while the silence lasts.
_SILENCE, _LONGEST_SILENCE = 1.0, 15.0
#: The JSON-RPC code by which the SDK says that no answer will come.
_CONNECTION_CLOSED = -32000
#: A server that gives more pages of tools than this gives the same ones for ever.
_MOST_PAGES = 1000

#: Event loops keep their tasks weakly: without this, a session that nobody waits for could vanish before its end.
_owners: set[asyncio.Task[None]] = set()


class AsyncMCPConnection:
    """An MCP session; made by `await AsyncMCPConnection.open(service)`, for use on the same event loop.

    The SDK's contexts have to be left by the task that entered them, so one task enters them, waits, and leaves.
    Calls run in the tasks of their callers, side by side: cancelling one leaves the session as it was.
    """

    def __init__(self, service: HTTPService | StdioService) -> None:
        self._service = service
        self._made_in = forks.current_process()
        self._loop = asyncio.get_running_loop()
        self._notes = Notes(self._ended)
        self._session: Any = None
        self._opened = asyncio.Event()
        self._stop = asyncio.Event()
        self._handshake = anyio.CancelScope()
        self._in_flight: set[anyio.CancelScope] = set()
        self._ended_calls = 0
        self._lost = self._closing = False
        self._failure: BaseException | None = None
        self._owner = asyncio.create_task(self._own(), name=f"MCP session with {service}")
        _owners.add(self._owner)
        self._owner.add_done_callback(_owners.discard)

    @classmethod
    async def open(cls, service: HTTPService | StdioService) -> AsyncMCPConnection:
        """Start or reach the server and initialize a session, within `connect_timeout`; ConnectFailed says why not."""
        connection = cls(service)
        try:
            await connection._opened.wait()
        except BaseException:
            connection._finish()
            raise
        if connection._session is None:
            raise ConnectFailed(f"cannot open an MCP session with {service}: {connection._reason()}") from (
                connection._failure
            )
        return connection

    async def call_tool(self, tool_name: str, arguments: Arguments, timeout: float | None = None) -> Any:  # noqa: ASYNC109
        """Call a tool and return the SDK's CallToolResult, also where it is marked as an error.

        Waits for `timeout` seconds, or for ever, and raises DeadlineExceeded; ConnectionLost at once where server or
        transport ends meanwhile; Closed after `close()`; and the SDK's own error where the server answers with one.
        """
        checks.text("tool_name", tool_name)
        if not isinstance(arguments, Mapping):
            raise TypeError(f"arguments must be a dict, not {type(arguments).__name__}")
        send = partial(self._session.call_tool, tool_name, dict(arguments))
        return await self._request(f"tools/call {tool_name}", send, timeout)

    async def list_tools(self, timeout: float | None = None) -> list[Any]:  # noqa: ASYNC109
        """Return the SDK's Tool of every tool, from all pages; errors and `timeout` (of a page) as in `call_tool`."""
        tools: list[Any] = []
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            page = await self._request("tools/list", partial(self._page_of_tools, cursor), timeout)
            tools += page.tools
            cursor = getattr(page, "next_cursor", None) or getattr(page, "nextCursor", None)  # 2.x, 1.x
            if not cursor:
                break
        return tools

    async def _page_of_tools(self, cursor: str | None) -> Any:
        parameters = mcp.types.PaginatedRequestParams(cursor=cursor) if cursor else None
        return await self._session.list_tools(params=parameters)

    async def ping(self, timeout: float = PING_TIMEOUT) -> None:  # noqa: ASYNC109
        """Ask the server whether it is there; raises within `timeout` seconds where it is not."""
        await self._request("ping", self._session.send_ping, timeout)

    def is_alive(self) -> bool:
        """Tell whether the session can be used, as far as this process has noticed; sends nothing."""
        usable = self._session is not None and not (self._lost or self._closing or self._notes.refusal)
        return usable and self._made_in == forks.current_process()

    async def close(self) -> None:
        """End the session, and the server where it is a child process; any number of times.

        Waits for it, 8 seconds at most. Calls in flight raise Closed.
        """
        if self._made_in != forks.current_process():
            return
        if not self._owner.done():
            self._check_loop()
        self._finish()
        if await self._owner_ends(_CLOSE_TIMEOUT):
            return
        self._owner.cancel()
        await self._owner_ends(1)

    async def _owner_ends(self, seconds: float) -> bool:
        if not self._owner.done():  # as it is where its event loop has ended, on which nobody can wait
            await asyncio.wait({self._owner}, timeout=seconds)
        return self._owner.done()

    async def _request(self, what: str, send: Callable[[], Awaitable[Value]], timeout: float | None) -> Value:  # noqa: ASYNC109
        self._check_usable(what)
        seconds = math.inf if timeout is None else checks.positive("timeout", timeout)
        cause: BaseException | None = None
        # The scope is what ends a call that the SDK would leave waiting when the session ends under it.
        with anyio.CancelScope(deadline=anyio.current_time() + seconds) as scope:
            self._in_flight.add(scope)
            try:
                return await send()
            except Exception as error:
                no_answer = getattr(getattr(error, "error", None), "code", None) == _CONNECTION_CLOSED
                if no_answer:
                    self._notes.refusal = str(error)
                if not (self._lost or self._closing):
                    if no_answer:
                        raise self._loss(what) from error
                    raise
                cause = error
            finally:
                self._in_flight.discard(scope)
                self._ended_calls += 1
        if self._lost or self._closing:
            await self._owner_ends(_REASON_TIMEOUT)
            raise self._loss(what) from (self._failure or cause)
        raise DeadlineExceeded(f"{self._service}: no answer to {what} after {timeout} s")

    def _check_usable(self, what: str) -> None:
        forks.check_process(self._made_in, self)
        if self._closing or self._lost:
            raise self._loss(what)
        self._check_loop()

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise WrongEventLoop(f"{self!r} belongs to another event loop: open one here")

    def _loss(self, what: str) -> Closed | ConnectionLost:
        if self._closing:
            return Closed(f"{self._service}: {what} failed, its connection is closed")
        return ConnectionLost(f"{self._service}: {what} failed, its connection ended: {self._reason()}")

    def _reason(self) -> str:
        failure = self._failure
        said = [self._notes.refusal, f"{type(failure).__name__}: {failure}" if failure else ""]
        told = "; ".join(filter(None, said)) or "the server closed it"
        stderr = str(self._notes.stderr)
        return f"{told} (its standard error ends: {stderr})" if stderr else told

    async def _own(self) -> None:
        """Enter the contexts of transport and session, wait until somebody or the server ends it, leave them."""
        try:
            async with self._transport() as streams, mcp.ClientSession(*streams) as session:
                await self._initialize(session)
                self._session = session
                self._opened.set()
                await self._wait(session)
        except Exception as error:
            self._failure = _innermost(error)
        except BaseException:
            self._notes.refusal = "its event loop ended"
            raise
        finally:
            self._ended()
            self._opened.set()

    def _transport(self) -> contextlib.AbstractAsyncContextManager[tuple[Any, Any]]:
        if isinstance(self._service, HTTPService):
            return mcp_transport.open_http(self._service, self._notes)
        return mcp_transport.open_stdio(self._service, self._notes)

    async def _initialize(self, session: Any) -> None:
        self._handshake.deadline = anyio.current_time() + self._service.connect_timeout
        with self._handshake:
            await session.initialize()
            return
        if self._lost:
            raise ConnectionError("the server closed it before it answered initialize")
        raise TimeoutError(f"no answer to initialize after {self._service.connect_timeout:g} s")

    async def _wait(self, session: Any) -> None:
        """Wait for the end; over HTTP, where a lost answer looks like a slow one, ask the server meanwhile."""
        if isinstance(self._service, StdioService):
            await self._stop.wait()
            return
        silence, asked = _SILENCE, False
        while not self._stop.is_set():
            seen = self._ended_calls
            with anyio.move_on_after(silence):
                await self._stop.wait()
            if not self._in_flight or seen != self._ended_calls:
                silence, asked = _SILENCE, False
                continue
            # A ping that was not answered in time stays under way, and fails where the server goes: one is enough.
            asked = asked or not await self._answers(session)
            if self._notes.refusal:
                return
            silence = min(2 * silence, _LONGEST_SILENCE)

    async def _answers(self, session: Any) -> bool:
        """Tell whether a ping is answered; where nobody is there, the transport fails, and the session with it."""
        with anyio.move_on_after(PING_TIMEOUT), contextlib.suppress(Exception):
            await session.send_ping()
            return True
        return False

    def _finish(self) -> None:
        """Ask the owner to leave; it cannot be cancelled, for that would cut the SDK's own clean-up short."""
        self._closing = True
        self._ended()

    def _ended(self) -> None:
        """Note that no answer will come any more, and end the calls that wait for one."""
        self._lost = True
        self._stop.set()
        for scope in (self._handshake, *self._in_flight):
            scope.cancel()

    def __repr__(self) -> str:
        state = "closed" if self._closing else "open" if self.is_alive() else "ended"
        return f"<{type(self).__name__} with {self._service}: {state}, {len(self._in_flight)} in flight>"


def _innermost(error: BaseException) -> BaseException:
    """Return the first failure in the groups that the SDK's task groups make of one."""
    while inner := getattr(error, "exceptions", None):
        error = inner[0]
    return error
