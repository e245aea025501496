"""MCP sessions for threads: all of a process live on one event loop, in a daemon thread that starts with the first."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from storescope.core import forks
from storescope.core.connections.mcp_connection import PING_TIMEOUT, AsyncMCPConnection
from storescope.core.connections.service_config import HTTPService, StdioService
from storescope.core.errors import Closed
from storescope.core.store import Arguments

Value = TypeVar("Value")

#: Seconds that the end of the interpreter waits for sessions which the program forgot to close.
_EXIT_TIMEOUT = 10.0


class LoopThread:
    """An event loop in a daemon thread, until the interpreter ends."""

    def __init__(self) -> None:
        self._ending = False
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._work, name="storescope-mcp", daemon=True)
        self._thread.start()
        self._started.wait()
        self._process = forks.current_process()
        atexit.register(self._end)

    def run(self, coroutine: Coroutine[Any, Any, Value]) -> Value:
        """Run a coroutine there, with the caller's context variables, and block until it has ended.

        An exception in the waiting thread, such as KeyboardInterrupt, cancels the coroutine.
        """
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError(f"a blocking call in the thread {self._thread.name} would wait for itself")
        if self._ending:
            coroutine.close()
            raise Closed(
                f"no MCP session is opened or used any more: {self._thread.name} has ended with the program"
            )
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _work(self) -> None:
        # `asyncio.run` cancels what is left at the end, which is how forgotten sessions end their servers.
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._started.set()
        await self._stop.wait()

    def _end(self) -> None:
        if self._process != forks.current_process():
            return
        self._ending = True
        # Nobody can act any more on a warning that a session's last request failed.
        logging.getLogger("mcp").setLevel(logging.ERROR)
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_EXIT_TIMEOUT)


class _Shared:
    """The one loop of this process; a forked child, in which its thread does not run, gets one of its own."""

    def __init__(self) -> None:
        self._inherited: list[LoopThread | None] = []
        self._begin()
        forks.after_fork(self._begin)

    def _begin(self) -> None:
        # What was inherited is kept for ever: closing the copy would disturb the parent's loop.
        self._inherited.append(getattr(self, "_thread", None))
        self._thread: LoopThread | None = None
        self._lock = threading.Lock()

    def get(self) -> LoopThread:
        with self._lock:
            if self._thread is None:
                self._thread = LoopThread()
            return self._thread


_shared = _Shared()


class MCPConnection:
    """An MCP session for use from any thread, by several at once; made by `MCPConnection.open(service)`."""

    def __init__(self, session: AsyncMCPConnection, thread: LoopThread) -> None:
        self._session = session
        self._thread = thread
        self._made_in = forks.current_process()

    @classmethod
    def open(cls, service: HTTPService | StdioService) -> MCPConnection:
        """Start or reach the server and initialize a session; blocks and raises as `AsyncMCPConnection.open`."""
        thread = _shared.get()
        return cls(thread.run(AsyncMCPConnection.open(service)), thread)

    def call_tool(self, tool_name: str, arguments: Arguments, timeout: float | None = None) -> Any:
        """Call a tool and return the SDK's CallToolResult; blocks and raises as `AsyncMCPConnection.call_tool`."""
        return self._run(self._session.call_tool(tool_name, arguments, timeout))

    def list_tools(self, timeout: float | None = None) -> list[Any]:
        """Return the SDK's Tool of every tool; blocks and raises as `AsyncMCPConnection.list_tools`."""
        return self._run(self._session.list_tools(timeout))

    def ping(self, timeout: float = PING_TIMEOUT) -> None:
        """Ask the server whether it is there; raises within `timeout` seconds where it is not."""
        self._run(self._session.ping(timeout))

    def is_alive(self) -> bool:
        """Tell whether the session can be used, as far as this process has noticed; sends nothing."""
        return self._session.is_alive()

    def close(self) -> None:
        """End the session, and the server where it is a child process; blocks for that, 8 seconds at most."""
        with contextlib.suppress(Closed):  # where the interpreter ends, the loop has closed it already
            if self._made_in == forks.current_process():
                self._run(self._session.close())

    def _run(self, coroutine: Coroutine[Any, Any, Value]) -> Value:
        if self._made_in != forks.current_process():
            coroutine.close()
            forks.check_process(self._made_in, self)
        return self._thread.run(coroutine)

    def __repr__(self) -> str:
        return repr(self._session).replace("Async", "", 1)
