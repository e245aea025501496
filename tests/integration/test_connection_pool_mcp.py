"""Real MCP sessions, alone and in pools, with servers that are killed, frozen and restarted; sync and async."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from integration.harness import HTTP_SERVER, ROOT, STDIO_SERVER, children, named
from integration.recording import Recorder

from storescope.core.connections.connection_pool import AsyncOptimizedConnectionPool, OptimizedConnectionPool
from storescope.core.connections.connectors import async_connector_for, connector_for
from storescope.core.errors import (
    Closed,
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    PoolTimeout,
    UsedAfterFork,
    WrongEventLoop,
)

pytestmark = pytest.mark.mcpsdk

SESSIONS_SERVER = ROOT / "tests" / "servers" / "sessions_http.py"
#: Longest that anything may take that should happen at once, on a busy machine.
PATIENCE = 20.0
USERS = 8

#: Names the folder whose `node_modules` has npm's servers; read before a test hides the developer's variables.
NODE_FOLDER = os.environ.get("STORESCOPE_TEST_NODE_FOLDER")

Config = dict[str, Any]
Start = Callable[..., tuple["subprocess.Popen[str]", Config]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a server over HTTP and tell its process and config; all are ended with the test."""
    with contextlib.ExitStack() as started:

        def begin(server: Path, port: int = 0) -> tuple[subprocess.Popen[str], Config]:
            process = subprocess.Popen(
                [sys.executable, str(server), *([str(port)] if port else [])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            started.enter_context(process)
            started.callback(process.kill)
            assert process.stdout is not None
            return process, {"url": f"http://127.0.0.1:{int(process.stdout.readline())}/mcp"}

        yield begin


@pytest.fixture
def stdio(tmp_path: Path) -> Config:
    """A server over stdio that this test's folder is named to, so that its processes can be found."""
    return {"command": sys.executable, "args": [str(STDIO_SERVER), str(tmp_path / "wire.jsonl")]}


@pytest.fixture(params=["stdio", "http"])
def config(request: pytest.FixtureRequest, stdio: Config, start: Start) -> Config:
    """A server by either transport."""
    return stdio if request.param == "stdio" else start(SESSIONS_SERVER)[1]


def servers_of(config: Config) -> list[psutil.Process]:
    """Return the processes that were started for a config and have not ended."""
    wanted = config["args"][-1]
    found = []
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if wanted in process.cmdline():
                found.append(process)
    return found


def python_server(code: str, *args: str) -> Config:
    return {"command": sys.executable, "args": ["-c", code, *args], "name": "odd"}


def text_of(result: Any) -> str:
    text: str = result.content[0].text
    return text


def eventually(condition: Callable[[], Any]) -> None:
    give_up_at = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up_at, "it never came true"
        time.sleep(0.01)


@contextlib.contextmanager
def opened(config: Config) -> Iterator[Any]:
    connection = connector_for(config)()
    try:
        yield connection
    finally:
        connection.close()


def use_async(config: Config, scenario: Callable[[Any], Any]) -> Any:
    """Run a coroutine function with a session that is closed after it."""

    async def run() -> Any:
        connection = await async_connector_for(config)()
        try:
            return await scenario(connection)
        finally:
            await connection.close()

    return asyncio.run(run())


class TestOneSession:
    def test_it_calls_lists_and_pings(self, config: Config) -> None:
        """A service config is enough for a session that any thread may use, until it is closed."""
        with opened(config) as session:
            assert session.is_alive()
            assert repr(session).startswith("<MCPConnection with ")
            assert repr(session).endswith(": open, 0 in flight>")
            assert text_of(session.call_tool("echo", {"text": "hi"})) == "hi"
            assert {"echo", "add"} <= {tool.name for tool in session.list_tools()}
            session.ping()
            with ThreadPoolExecutor(USERS) as pool:
                answers = pool.map(lambda i: session.call_tool("echo", {"text": str(i)}), range(30))
                assert [text_of(answer) for answer in answers] == [str(i) for i in range(30)]
        session.close()
        assert not session.is_alive()
        assert repr(session).endswith(": closed, 0 in flight>")
        with pytest.raises(Closed, match="tools/call echo failed, its connection is closed"):
            session.call_tool("echo", {})

    def test_it_does_so_on_an_event_loop(self, config: Config) -> None:
        """The async face has the same methods, and its calls run side by side."""

        async def scenario(session: Any) -> None:
            assert session.is_alive()
            calls = (session.call_tool("echo", {"text": str(i)}) for i in range(20))
            assert [text_of(answer) for answer in await asyncio.gather(*calls)] == [str(i) for i in range(20)]
            assert "echo" in {tool.name for tool in await session.list_tools()}
            await session.ping()
            await session.close()
            assert not session.is_alive()
            with pytest.raises(Closed):
                await session.ping()

        use_async(config, scenario)

    def test_closing_ends_the_server(self, stdio: Config) -> None:
        """The child process of a session is gone when `close()` returns, and nothing was printed."""
        with opened(stdio):
            assert len(servers_of(stdio)) == 1
        assert servers_of(stdio) == []

    def test_closing_fails_calls_in_flight(self, stdio: Config) -> None:
        """Whoever waits for an answer while another thread closes is told at once."""
        with opened(stdio) as session, ThreadPoolExecutor(1) as pool:
            call = pool.submit(session.call_tool, "sleep", {"seconds": PATIENCE})
            eventually(lambda: "1 in flight" in repr(session))
            session.close()
            with pytest.raises(Closed, match="tools/call sleep failed, its connection is closed"):
                call.result(PATIENCE)

    def test_all_pages_of_tools_are_listed(self) -> None:
        """A server may give its tools in pages."""
        paged = f"""
import sys
sys.path.insert(0, {str(STDIO_SERVER.parent)!r})
import lab as laboratory
def page(params):
    at = int(params.get("cursor") or 0)
    tools = [{{"name": list(laboratory.TOOLS)[at], "inputSchema": laboratory.SCHEMA}}]
    return {{"tools": tools}} | ({{"nextCursor": str(at + 1)}} if at + 1 < len(laboratory.TOOLS) else {{}})
laboratory.METHODS["tools/list"] = page
sys.argv[1:] = []
exec(open({str(STDIO_SERVER)!r}).read())
"""
        with opened(python_server(paged)) as session:
            assert len(session.list_tools()) == 10

    def test_errors_of_tools_and_of_the_server_are_told_apart(self, config: Config) -> None:
        """A result that is marked as an error is a result, a JSON-RPC error the SDK's; the session goes on."""
        with opened(config) as session:
            failed = session.call_tool("fail", {})
            assert getattr(failed, "is_error", None) or getattr(failed, "isError", None)
            with pytest.raises(Exception, match="bad params") as refusal:
                session.call_tool("rpc_error", {})
            assert refusal.type.__module__.startswith("mcp.")
            assert session.is_alive()

    def test_a_deadline_leaves_the_session_as_it_was(self, config: Config) -> None:
        """`timeout` bounds a call, and the next one is answered."""
        with opened(config) as session:
            with pytest.raises(DeadlineExceeded, match=r"no answer to tools/call sleep after 0.1 s"):
                session.call_tool("sleep", {"seconds": 0.4}, timeout=0.1)
            assert text_of(session.call_tool("echo", {"text": "hi"}, timeout=PATIENCE)) == "hi"
            assert session.is_alive()

    @pytest.mark.parametrize(
        ("error", "message", "call"),
        [
            (ValueError, "timeout must be above 0, not 0", {"timeout": 0}),
            (ValueError, "timeout must be above 0, not nan", {"timeout": float("nan")}),
            (TypeError, "timeout must be a number, not True", {"timeout": True}),
            (TypeError, "tool_name must be a text, not None", {"tool_name": None}),
            (ValueError, "tool_name must not be empty", {"tool_name": ""}),
            (TypeError, "arguments must be a dict, not list", {"arguments": ["hi"]}),
        ],
    )
    def test_bad_arguments_are_refused(
        self, stdio: Config, error: type[Exception], message: str, call: dict[str, Any]
    ) -> None:
        """An error names the argument and what it must be, and nothing is sent."""
        with opened(stdio) as session:
            with pytest.raises(error, match=message):
                session.call_tool(**({"tool_name": "echo", "arguments": {}} | call))
            assert session.is_alive()

    def test_a_cancelled_call_leaves_the_session_as_it_was(self, config: Config) -> None:
        """Tasks that give up do the session no harm, nor the calls of others."""

        async def scenario(session: Any) -> None:
            other = asyncio.create_task(session.call_tool("sleep", {"seconds": 0.4}))
            for _ in range(5):
                call = asyncio.create_task(session.call_tool("sleep", {"seconds": 0.3}))
                await asyncio.sleep(0.02)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
            assert text_of(await other) == "slept"
            assert text_of(await session.call_tool("echo", {"text": "hi"})) == "hi"
            assert session.is_alive()

        use_async(config, scenario)

    def test_an_opening_that_is_cancelled_leaves_nothing(self) -> None:
        """A server that is being started when the caller gives up is ended."""
        config = python_server("import sys; sys.stdin.read()", "cancelled-opening")

        async def scenario() -> None:
            opening = asyncio.create_task(async_connector_for(config)())
            await asyncio.to_thread(eventually, lambda: servers_of(config))
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            await asyncio.to_thread(eventually, lambda: servers_of(config) == [])

        asyncio.run(scenario())

    def test_another_event_loop_is_refused(self, stdio: Config) -> None:
        """A session that was carried to another loop says so, where the SDK would wait for ever."""

        async def scenario(session: Any) -> None:
            def elsewhere() -> None:
                with pytest.raises(WrongEventLoop, match="belongs to another event loop"):
                    asyncio.run(session.ping())

                with pytest.raises(WrongEventLoop):
                    asyncio.run(session.close())

            await asyncio.to_thread(elsewhere)
            assert session.is_alive()

        use_async(stdio, scenario)

    def test_a_loop_that_ends_takes_its_sessions_along(self, stdio: Config) -> None:
        """A program that forgets to close leaves no server behind."""

        async def scenario() -> Any:
            session = await async_connector_for(stdio)()
            await session.ping()
            return session

        session = asyncio.run(scenario())
        assert not session.is_alive()
        eventually(lambda: servers_of(stdio) == [])
        with pytest.raises(
            ConnectionLost,
            match=r"ping failed, its connection ended: (its event loop ended|the server closed it)",
        ):
            asyncio.run(session.ping())
        asyncio.run(session.close())

    def test_calls_belong_to_the_callers_trace(self, recorder: Recorder, stdio: Config) -> None:
        """The caller's context variables reach the session in its other thread: spans nest."""
        with opened(stdio) as session, recorder.tracer.start_as_current_span("application"):
            session.call_tool("echo", {"text": "hi"})
        application = named(recorder.spans(), "application")
        assert any("echo" in span.name for span in children(recorder.spans(), application))


class TestServersThatCannotBeReached:
    @pytest.mark.parametrize(
        ("code", "reason"),
        [
            ("import no_such_module", "closed it before it answered .*No module named 'no_such_module'"),
            ("import sys; sys.stdin.read()", "no answer to initialize after 0.3 s"),
        ],
    )
    def test_a_server_that_does_not_begin_says_why(
        self, code: str, reason: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """ConnectFailed has the reason, with the last words of the server, which are not printed."""
        config = python_server(code) | {"connect_timeout": PATIENCE if "no_such" in code else 0.3}
        with pytest.raises(ConnectFailed, match=f"cannot open an MCP session with odd: .*{reason}"):
            connector_for(config)()
        assert servers_of(config) == []
        assert capfd.readouterr() == ("", "")

    def test_a_command_that_is_not_there_is_said(self) -> None:
        """ConnectFailed names it, and has the system's error for its cause."""
        with pytest.raises(ConnectFailed, match="No such file or directory: 'no-such-server'") as failure:
            connector_for({"command": "no-such-server"})()
        assert isinstance(failure.value.__cause__, FileNotFoundError)

    def test_folder_and_environment_are_the_configs(self, tmp_path: Path) -> None:
        """A server starts in `cwd`, with `env` beside the few variables that the SDK hands on."""
        code = "import os, sys; sys.exit(os.getcwd() + os.environ['TOKEN'] + os.environ.get('OTHER', '-'))"
        config = python_server(code) | {"cwd": tmp_path, "env": {"TOKEN": "+t0ken+"}}
        with pytest.raises(ConnectFailed) as failure:
            connector_for(config)()
        assert f"{tmp_path}+t0ken+-" in str(failure.value)

    def test_headers_are_sent_and_a_refusal_is_a_failure(self) -> None:
        """A server that lets nobody in without a token sees it, and its answer fails the opening."""
        seen: list[str] = []

        class Guard(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                seen.append(self.headers["Authorization"])
                self.send_error(401)

            def log_message(self, *_: object) -> None:
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Guard) as guard:
            threading.Thread(target=guard.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{guard.server_port}/mcp"
            with pytest.raises(ConnectFailed, match=r"cannot open an MCP session with .*401"):
                connector_for({"url": url, "headers": {"Authorization": "Bearer t0ken"}})()
            guard.shutdown()
        assert seen[0] == "Bearer t0ken"

    def test_nobody_listening_is_said(self) -> None:
        """ConnectFailed for an address at which no server is."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            url = f"http://127.0.0.1:{taken.getsockname()[1]}/mcp"
        with pytest.raises(ConnectFailed, match=f"cannot open an MCP session with {url}: .*onnect"):
            connector_for({"url": url})()


class TestServersThatGo:
    def test_a_call_fails_when_its_server_is_killed(self, stdio: Config) -> None:
        """A call in flight fails with what happened, at once; the session is not alive, and says why again."""
        with opened(stdio) as session, ThreadPoolExecutor(1) as pool:
            call = pool.submit(session.call_tool, "sleep", {"seconds": 2 * PATIENCE})
            eventually(lambda: "1 in flight" in repr(session))
            servers_of(stdio)[0].kill()
            with pytest.raises(
                ConnectionLost, match="tools/call sleep failed, its connection ended: the server"
            ):
                call.result(PATIENCE)
            assert not session.is_alive()
            with pytest.raises(ConnectionLost, match="tools/call echo failed, its connection ended"):
                session.call_tool("echo", {})

    def test_an_idle_session_notices(self, stdio: Config) -> None:
        """`is_alive()` turns False without any call."""
        with opened(stdio) as session:
            servers_of(stdio)[0].kill()
            eventually(lambda: not session.is_alive())
            assert repr(session).endswith(": ended, 0 in flight>")

    def test_all_calls_on_an_event_loop_fail(self, stdio: Config) -> None:
        """Tasks that share a session all learn that it has ended."""

        async def scenario(session: Any) -> list[BaseException]:
            calls = [asyncio.create_task(session.call_tool("sleep", {"seconds": PATIENCE})) for _ in range(5)]
            await asyncio.sleep(0.1)
            servers_of(stdio)[0].kill()
            return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), PATIENCE)

        assert [type(error) for error in use_async(stdio, scenario)] == [ConnectionLost] * 5

    @pytest.mark.parametrize("server", [HTTP_SERVER, SESSIONS_SERVER], ids=["json", "events"])
    def test_a_call_over_http_fails_when_its_server_is_killed(self, start: Start, server: Path) -> None:
        """So it is over HTTP, also where the SDK 1.x would wait for ever for the rest of a stream of events."""
        process, config = start(server)
        with opened(config) as session, ThreadPoolExecutor(1) as pool:
            call = pool.submit(session.call_tool, "sleep", {"seconds": 2 * PATIENCE})
            eventually(lambda: "1 in flight" in repr(session))
            time.sleep(0.2)  # the answer's head is under way
            process.kill()
            error = call.exception(PATIENCE)
            assert isinstance(error, ConnectionLost)
            assert not session.is_alive()

    def test_a_slow_call_over_http_is_no_lost_one(self, start: Start) -> None:
        """Being silent for a while costs nothing where the server is there."""
        _, config = start(SESSIONS_SERVER)
        with opened(config) as session:
            assert text_of(session.call_tool("sleep", {"seconds": 1.5})) == "slept"
            assert session.is_alive()

    def test_a_frozen_server_fails_its_ping(self, stdio: Config) -> None:
        """A server that does not answer is found out by `ping` and by deadlines, and can be closed all the same."""
        with opened(stdio) as session:
            (server,) = servers_of(stdio)
            server.suspend()
            with pytest.raises(DeadlineExceeded, match=r"no answer to ping after 0.1 s"):
                session.ping(timeout=0.1)
            server.resume()
            session.ping(timeout=PATIENCE)

    def test_the_last_words_of_a_server_are_told(self) -> None:
        """What it wrote to its standard error before it ended is in the error, its end alone."""
        dying = f"""
import sys
sys.path.insert(0, {str(STDIO_SERVER.parent)!r})
import os
import lab as laboratory
def crash(**_):
    sys.stderr.write("noise\\n" * 100_000 + "out of cheese\\n")
    sys.stderr.flush()
    os._exit(1)
laboratory.TOOLS["die"] = crash
sys.argv[1:] = []
exec(open({str(STDIO_SERVER)!r}).read())
"""
        with opened(python_server(dying)) as session:
            with pytest.raises(ConnectionLost, match=r"its standard error ends: .*out of cheese\)") as loss:
                session.call_tool("die", {}, timeout=PATIENCE)
            assert len(str(loss.value)) < 300


class TestProcesses:
    PROGRAM = """
import json, sys
import psutil
from storescope.core.connections.connection_pool import OptimizedConnectionPool
from storescope.core.connections.connectors import connector_for
sessions = [connector_for(config)() for config in json.loads(sys.argv[1])]
for session in sessions:
    session.call_tool("echo", {})
pool = OptimizedConnectionPool(json.loads(sys.argv[1])[0], min_size=1)
pool.wait()
print([process.pid for process in psutil.Process().children()])
"""

    def run(self, *configs: Config) -> list[int]:
        program = [sys.executable, "-W", "error", "-c", self.PROGRAM, json.dumps(configs)]
        done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        pids: list[int] = json.loads(done.stdout)
        return pids

    def test_a_program_that_forgets_to_close_ends_its_servers(self, stdio: Config, start: Start) -> None:
        """The interpreter ends without a word, and takes the child processes along."""
        pids = self.run(stdio, stdio, start(HTTP_SERVER)[1], start(SESSIONS_SERVER)[1])
        assert len(pids) == 3
        eventually(lambda: not any(psutil.pid_exists(pid) for pid in pids))

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
    @pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
    def test_a_forked_child_opens_its_own(self, stdio: Config) -> None:
        """The parent's session is refused there, closing it does nothing, and a new one works; the parent's goes on."""
        with opened(stdio) as session:
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    try:
                        session.call_tool("echo", {})
                    except UsedAfterFork:
                        session.close()
                        with opened(stdio) as own:
                            code = 0 if text_of(own.call_tool("echo", {"text": "hi"})) == "hi" else 2
                finally:
                    os._exit(code if not session.is_alive() else 3)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert session.is_alive()
            assert text_of(session.call_tool("echo", {"text": "hi"})) == "hi"


class TestPools:
    def test_users_share_the_sessions(self, config: Config) -> None:
        """Eight threads on two sessions: every answer is the caller's own, and no third session is opened."""
        with OptimizedConnectionPool(config, min_size=1, max_size=2) as pool:

            def use(number: int) -> str:
                with pool.get_connection() as session:
                    return text_of(session.call_tool("echo", {"text": str(number)}))

            with ThreadPoolExecutor(USERS) as users:
                assert list(users.map(use, range(80))) == [str(i) for i in range(80)]
            assert 1 <= pool.stats().created <= 2
            assert pool.stats().in_use == 0

    def test_tasks_share_the_sessions(self, config: Config) -> None:
        """The same for asyncio."""

        async def scenario() -> None:
            async with AsyncOptimizedConnectionPool(config, min_size=1, max_size=2) as pool:

                async def use(number: int) -> str:
                    async with pool.get_connection() as session:
                        return text_of(await session.call_tool("echo", {"text": str(number)}))

                answers = await asyncio.gather(*map(use, range(80)))
                assert answers == [str(i) for i in range(80)]
                assert 1 <= pool.stats().created <= 2

        asyncio.run(scenario())

    def test_closing_a_pool_ends_its_servers(self, stdio: Config) -> None:
        """No process is left."""
        with OptimizedConnectionPool(stdio, min_size=2, max_size=2) as pool:
            pool.wait(PATIENCE)
            assert len(servers_of(stdio)) == 2
        eventually(lambda: servers_of(stdio) == [])

    def test_a_server_that_freezes_does_not_close_the_asyncio_pool(
        self, stdio: Config, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its ping, which gives up, costs its session; the next one is as good as the first."""
        from storescope.core.connections.mcp_connection import AsyncMCPConnection

        monkeypatch.setattr(AsyncMCPConnection.ping, "__defaults__", (1.0,))

        async def scenario() -> None:
            async with AsyncOptimizedConnectionPool(
                stdio, min_size=1, max_size=2, validate_after=0.2
            ) as pool:
                await pool.wait(PATIENCE)
                (frozen,) = servers_of(stdio)
                frozen.suspend()
                await asyncio.to_thread(eventually, lambda: pool.closed or pool.stats().invalid)
                frozen.resume()
                async with pool.get_connection(PATIENCE) as session:
                    assert text_of(await session.call_tool("echo", {"text": "again"})) == "again"

        asyncio.run(scenario())

    def test_a_pool_recovers_from_servers_that_are_killed(self, stdio: Config) -> None:
        """Calls in flight fail with what happened; afterwards there are as many sessions as before, none leaked."""
        with OptimizedConnectionPool(stdio, min_size=2, max_size=2, timeout=PATIENCE) as pool:

            def use(seconds: float) -> str:
                with pool.get_connection() as session:
                    return text_of(session.call_tool("sleep", {"seconds": seconds}, timeout=PATIENCE))

            pool.wait(PATIENCE)
            with ThreadPoolExecutor(USERS) as users:
                for _ in range(2):
                    interrupted = [users.submit(use, PATIENCE) for _ in range(2)]
                    eventually(lambda: pool.stats().in_use == 2)
                    waiting = [users.submit(use, 0) for _ in range(USERS - 2)]
                    eventually(lambda: pool.stats().waiting == USERS - 2)
                    for server in servers_of(stdio):
                        server.kill()
                    assert {type(call.exception(PATIENCE)) for call in interrupted} == {ConnectionLost}
                    assert [call.result(PATIENCE) for call in waiting] == ["slept"] * (USERS - 2)
            pool.wait(PATIENCE)
            stats = pool.stats()
            assert (stats.total, stats.in_use, stats.waiting) == (2, 0, 0)
            assert stats.created == stats.closed + stats.total
            eventually(lambda: len(servers_of(stdio)) == 2)
        eventually(lambda: servers_of(stdio) == [])

    def test_idle_sessions_whose_server_was_killed_are_not_handed_out(self, stdio: Config) -> None:
        """Nobody gets a dead session: it is replaced at check-out."""
        with OptimizedConnectionPool(stdio, min_size=2, max_size=2, timeout=PATIENCE) as pool:
            pool.wait(PATIENCE)
            for server in servers_of(stdio):
                server.kill()
            eventually(lambda: servers_of(stdio) == [] or pool.stats().created > 2)
            time.sleep(0.05)  # the end of its output reaches this process
            for _ in range(4):
                with pool.get_connection() as session:
                    assert text_of(session.call_tool("echo", {"text": "hi"})) == "hi"

    def test_an_async_pool_recovers(self, stdio: Config) -> None:
        """The same for asyncio."""

        async def scenario() -> None:
            async with AsyncOptimizedConnectionPool(stdio, min_size=2, max_size=2, timeout=PATIENCE) as pool:

                async def use(seconds: float) -> str:
                    async with pool.get_connection() as session:
                        return text_of(await session.call_tool("sleep", {"seconds": seconds}))

                await pool.wait(PATIENCE)
                interrupted = [asyncio.create_task(use(PATIENCE)) for _ in range(2)]
                await asyncio.sleep(0.1)
                waiting = [asyncio.create_task(use(0)) for _ in range(USERS)]
                await asyncio.sleep(0.1)
                for server in servers_of(stdio):
                    server.kill()
                errors = await asyncio.gather(*interrupted, return_exceptions=True)
                assert [type(error) for error in errors] == [ConnectionLost] * 2
                assert await asyncio.gather(*waiting) == ["slept"] * USERS
                await pool.wait(PATIENCE)
                stats = pool.stats()
                assert (stats.total, stats.in_use) == (2, 0)
                assert stats.created == stats.closed + stats.total

        asyncio.run(scenario())
        eventually(lambda: servers_of(stdio) == [])

    def test_who_waits_is_told_what_happened(self, tmp_path: Path) -> None:
        """When the server is killed and cannot be started again, those who wait get the reason."""
        server = tmp_path / "server.py"
        server.write_text(
            f"import sys; sys.path.insert(0, {str(STDIO_SERVER.parent)!r})\n"
            f"sys.argv[1:] = []; exec(open({str(STDIO_SERVER)!r}).read())\n"
        )
        config = {"command": sys.executable, "args": [str(server)]}
        with (
            OptimizedConnectionPool(config, min_size=1, max_size=1) as pool,
            ThreadPoolExecutor(4) as users,
        ):
            pool.wait(PATIENCE)

            def use(timeout: float) -> None:
                with pool.get_connection(timeout=timeout) as session:
                    session.call_tool("sleep", {"seconds": PATIENCE})

            interrupted = users.submit(use, PATIENCE)
            eventually(lambda: pool.stats().in_use == 1)
            waiting = [users.submit(use, 2) for _ in range(3)]
            eventually(lambda: pool.stats().waiting == 3)
            server.unlink()
            servers_of(config)[0].kill()
            assert isinstance(interrupted.exception(PATIENCE), ConnectionLost)
            for user in waiting:
                with pytest.raises((ConnectFailed, PoolTimeout), match="No such file or directory"):
                    user.result(PATIENCE)
            eventually(lambda: pool.stats().total == 0)  # between two attempts to open the session anew

    def test_a_server_that_cannot_be_started_is_said(self) -> None:
        """A bad command is a ConnectFailed with the system's words, not a mere timeout."""
        pool = OptimizedConnectionPool({"command": "no-such-server"}, min_size=1, max_size=2)
        with pool, pytest.raises(ConnectFailed, match="No such file or directory: 'no-such-server'"):
            pool.acquire(timeout=0.5)

    def test_a_server_that_is_restarted_is_used_again(self, start: Start) -> None:
        """Sessions of a server that came back at the same address are replaced as they are found out."""
        process, config = start(SESSIONS_SERVER)
        with OptimizedConnectionPool(config, min_size=2, max_size=2, timeout=PATIENCE) as pool:

            def use() -> bool:
                try:
                    with pool.get_connection() as session:
                        return text_of(session.call_tool("echo", {"text": "hi"}, timeout=PATIENCE)) == "hi"
                except Exception:
                    return False

            pool.wait(PATIENCE)
            assert use()
            process.kill()
            process.wait()
            assert not use()
            start(SESSIONS_SERVER, urlsplit(config["url"]).port)
            eventually(use)
            assert [use() for _ in range(6)][-3:] == [True] * 3
            stats = pool.stats()
            assert stats.in_use == 0
            assert stats.total <= 2


@pytest.fixture(scope="module")
def node_folder() -> Path:
    """The folder of npm's servers; a test is skipped where nobody promised them."""
    if NODE_FOLDER is None:
        pytest.skip("STORESCOPE_TEST_NODE_FOLDER does not name a folder with npm's MCP servers")
    return Path(NODE_FOLDER)


def test_a_pool_of_npms_filesystem_server(node_folder: Path, tmp_path: Path) -> None:
    """Files that are written through a pool of sessions are read through it, each server ended with the pool."""
    program = shutil.which("node")
    assert program is not None, "there is no node here"
    script = (
        node_folder / "node_modules" / "@modelcontextprotocol" / "server-filesystem" / "dist" / "index.js"
    )
    config = {"command": program, "args": [str(script), str(tmp_path)]}
    names: Sequence[str] = [str(tmp_path / f"{i}.txt") for i in range(20)]
    with OptimizedConnectionPool(config, min_size=2, max_size=3, timeout=PATIENCE) as pool:

        def call(tool: str, **arguments: str) -> str:
            with pool.get_connection() as session:
                return text_of(session.call_tool(tool, arguments))

        with ThreadPoolExecutor(USERS) as users:
            list(users.map(lambda name: call("write_file", path=name, content=f"in {name}"), names))
            texts = list(users.map(lambda name: call("read_file", path=name), names))
    assert texts == [f"in {name}" for name in names]
    eventually(lambda: servers_of(config) == [])
