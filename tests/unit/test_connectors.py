"""Service configs, and TCP connections to real sockets; MCP sessions are in `integration/`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storescope.core.connections.connectors import async_connector_for, connector_for
from storescope.core.connections.service_config import (
    HTTPService,
    StdioService,
    TCPService,
    read_service_config,
)
from storescope.core.errors import ConnectFailed, UsedAfterFork

PATIENCE = 5.0


class EchoServer:
    """A TCP server that sends back what it receives, and can hang up on everybody."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._accepted: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connected, _ = self._listener.accept()
                self._accepted.append(connected)
                threading.Thread(target=self._echo, args=(connected,), daemon=True).start()

    def _echo(self, connected: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := connected.recv(1024):
                connected.sendall(data)

    def hang_up(self) -> None:
        for connected in self._accepted:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.hang_up()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE)
        for connected in self._accepted:
            connected.close()


@pytest.fixture
def server() -> Iterator[EchoServer]:
    echo = EchoServer()
    yield echo
    echo.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until the other side of a connection has done its part."""
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.005)):
        if condition():
            return
        pause.wait(0.005)
    pytest.fail("it never came true")


@pytest.mark.parametrize(
    ("config", "service"),
    [
        ({"url": "http://127.0.0.1:1/mcp"}, HTTPService("http://127.0.0.1:1/mcp")),
        (
            {"url": "https://x/mcp", "type": "streamable-http", "headers": {"A": "b"}, "name": "shop"},
            HTTPService("https://x/mcp", {"A": "b"}, "shop"),
        ),
        (
            {"command": "node", "args": ["a.js"], "env": {"A": "b"}, "cwd": Path("/x"), "transport": "stdio"},
            StdioService("node", ("a.js",), {"A": "b"}, "/x"),
        ),
        (
            {"host": "localhost", "port": 8080, "connect_timeout": 2},
            TCPService("localhost", 8080, connect_timeout=2.0),
        ),
    ],
)
def test_a_config_describes_one_service(config: dict[str, Any], service: object) -> None:
    """Each kind of config is read with its options, also with what files of definitions say besides."""
    assert read_service_config(config) == service


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, r"service_config is empty: it must have 'url' .* or give the pool a factory"),
        ({"port": 1}, r"service_config has only 'port': it must have .* 'host' and 'port'"),
        ({"url": "http://x/", "command": "y"}, "has 'url', 'command', which contradict each other: keep one"),
        ({"host": "x"}, "service_config with 'host' lacks 'port'"),
        (
            {"command": "x", "arg": ["y"]},
            "with 'command' knows no 'arg': leave it out, or use one of .*'args'",
        ),
        ({"host": "x", "port": 1, "headers": {}}, "with 'host' knows no 'headers'"),
        (
            {"url": "http://x/", "type": "sse"},
            r"\['type'\] beside 'url' must be one of 'http', .*, not 'sse'",
        ),
        ({"command": "x", "transport": "http"}, r"\['transport'\] beside 'command' must be one of 'stdio'"),
        ({"url": "x/mcp"}, r"\['url'\] must be an address such as 'http://.*', not 'x/mcp'"),
        ({"url": "ftp://x/mcp"}, r"\['url'\] must be an address"),
        ({"url": "http://[bad"}, r"\['url'\] is no address \(.*IPv6.*\): 'http://\[bad'"),
        ({"url": "http://x:99999/"}, r"\['url'\] is no address \(Port out of range .*\): 'http://x:99999/'"),
        ({"command": ""}, r"\['command'\] must not be empty"),
        ({"host": "x", "port": 0}, r"\['port'\] must be 1 or more, not 0"),
        ({"host": "x", "port": 65536}, r"\['port'\] must be 65535 or less, not 65536"),
        ({"host": "x", "port": 1, "connect_timeout": 0}, r"\['connect_timeout'\] must be above 0, not 0"),
        (
            {"host": "x", "port": 1, "connect_timeout": float("nan")},
            r"\['connect_timeout'\] must be above 0",
        ),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(config: dict[str, Any], message: str) -> None:
    """A ValueError names the key, what it should be, and how to mend it, before anything is opened."""
    for connector in (connector_for, async_connector_for):
        with pytest.raises(ValueError, match=message):
            connector(config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ([], "service_config must be a dict, not list"),
        ("http://x/", "service_config must be a dict, not str"),
        ({"host": "x", "port": "80"}, r"\['port'\] must be an integer, not '80'"),
        ({"host": "x", "port": True}, r"\['port'\] must be an integer, not True"),
        ({"host": 1, "port": 80}, r"\['host'\] must be a text, not 1"),
        ({"command": ["node", "x"]}, r"\['command'\] must be a text, not \['node', 'x'\]"),
        ({"command": "node", "args": "a b"}, r"\['args'\] must be a list of texts, not str"),
        ({"command": "node", "args": [8080]}, r"\['args'\]\[0\] must be a text, not int"),
        ({"command": "node", "cwd": 3}, r"\['cwd'\] must be a text, not 3"),
        ({"command": "node", "env": ["A=b"]}, r"\['env'\] must be a dict of texts, not list"),
        ({"command": "node", "env": {"PORT": 80}}, r"\['env'\]\['PORT'\] must be a text, not int"),
    ],
)
def test_a_config_of_the_wrong_types_is_refused(config: Any, message: str) -> None:
    """A TypeError names the key and the type."""
    with pytest.raises(TypeError, match=message):
        connector_for(config)


def test_secrets_of_a_config_are_never_shown() -> None:
    """Headers, environment, arguments and what an address holds besides appear in no text that we make."""
    configs: list[dict[str, Any]] = [
        {"url": "https://user:s3cret@x:1/mcp?token=s3cret", "headers": {"A": "s3cret"}},
        {"command": "node", "args": ["--token=s3cret"], "env": {"A": "s3cret"}},
    ]
    for config in configs:
        service = read_service_config(config)
        assert "s3cret" not in f"{service} {service!r}"
    with pytest.raises(TypeError) as refusal:
        connector_for({"url": "http://x/", "headers": {"Authorization": b"s3cret"}})
    assert "s3cret" not in str(refusal.value)


@pytest.mark.parametrize("connector", [connector_for, async_connector_for])
def test_without_the_sdk_the_extra_is_named(
    connector: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A config that asks for MCP says what to install; one that does not needs nothing."""
    for module in [name for name in sys.modules if name.startswith("storescope.core.mcp_")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(ImportError, match=r"needs the MCP SDK, .* pip install 'storescope\[mcp\]'"):
        connector({"command": "node"})
    connector({"host": "localhost", "port": 1})


def test_a_tcp_connection_carries_bytes(server: EchoServer) -> None:
    """The guide's `host` and `port` open a socket, which can be used as one."""
    connection = connector_for({"host": "127.0.0.1", "port": server.port})()
    connection.sendall(b"hello")
    assert connection.recv(100) == b"hello"
    connection.socket.sendall(b"again")
    assert connection.socket.recv(100) == b"again"
    assert connection.is_alive()
    assert repr(connection) == f"<TCPConnection to 127.0.0.1:{server.port}: open>"
    connection.close()
    connection.close()
    assert not connection.is_alive()
    assert repr(connection) == f"<TCPConnection to 127.0.0.1:{server.port}: ended>"
    with pytest.raises(OSError, match="Bad file descriptor"):
        connection.sendall(b"x")


def test_a_tcp_connection_knows_that_its_peer_has_gone(server: EchoServer) -> None:
    """A look at the socket tells, without waiting and without taking bytes from it, whatever timeout it has."""
    connection = connector_for({"host": "127.0.0.1", "port": server.port})()
    connection.socket.settimeout(PATIENCE)
    connection.sendall(b"hello")
    eventually(lambda: connection.socket.recv(5, socket.MSG_PEEK) == b"hello")
    assert connection.is_alive()
    assert connection.recv(5) == b"hello"
    server.hang_up()
    eventually(lambda: not connection.is_alive())
    connection.close()


def test_a_tcp_connection_that_is_reset_is_not_alive() -> None:
    """A peer that crashes resets the connection, and that is no exception of the look."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = connector_for({"host": "127.0.0.1", "port": listener.getsockname()[1]})()
        accepted, _ = listener.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        accepted.close()
    eventually(lambda: not connection.is_alive())
    connection.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_tcp_connection_is_not_used_in_a_forked_child(server: EchoServer) -> None:
    """Two processes on one socket would mix their bytes: the child is refused, the parent goes on."""
    connection = connector_for({"host": "127.0.0.1", "port": server.port})()
    child = os.fork()
    if child == 0:
        refused = 0
        for use in (lambda: connection.sendall(b"x"), lambda: connection.recv(1)):
            try:
                use()
            except UsedAfterFork:
                refused += 1
        os._exit(0 if refused == 2 and not connection.is_alive() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    connection.sendall(b"y")
    assert connection.recv(1) == b"y"
    connection.close()


def test_nobody_listening_is_said() -> None:
    """ConnectFailed names the address and the reason, sync and async."""
    config = {"host": "127.0.0.1", "port": free_port()}
    message = f"cannot connect to 127.0.0.1:{config['port']}: .*Connect"
    with pytest.raises(ConnectFailed, match=message):
        connector_for(config)()
    with pytest.raises(ConnectFailed, match=message):
        asyncio.run(_opened(async_connector_for(config)))


@pytest.mark.parametrize("host", ["a" * 70 + ".x", "a\0b"])
def test_a_host_that_is_no_name_is_said(host: str) -> None:
    """ConnectFailed, as for any other that cannot be reached."""
    config = {"host": host, "port": 80, "name": "odd"}
    with pytest.raises(ConnectFailed, match="cannot connect to odd: "):
        connector_for(config)()
    with pytest.raises(ConnectFailed, match="cannot connect to odd: "):
        asyncio.run(_opened(async_connector_for(config)))


def test_opening_may_take_for_ever(server: EchoServer) -> None:
    """Infinity switches `connect_timeout` off, sync and async."""
    config = {"host": "127.0.0.1", "port": server.port, "connect_timeout": float("inf")}
    connection = connector_for(config)()
    assert connection.is_alive()
    connection.close()

    async def scenario() -> None:
        connection = await async_connector_for(config)()
        assert connection.is_alive()
        await connection.close()

    asyncio.run(scenario())


async def _opened(connect: Callable[[], Awaitable[Any]]) -> Any:
    return await connect()


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """The port of a listener whose queue is full: whoever connects waits."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not let a full queue wait")
def test_an_address_that_never_answers_is_given_up(deaf_port: int) -> None:
    """`connect_timeout` bounds the opening, sync and async."""
    config = {"host": "127.0.0.1", "port": deaf_port, "connect_timeout": 0.05, "name": "deaf"}
    with pytest.raises(ConnectFailed, match=r"cannot connect to deaf: no answer after 0.05 s"):
        connector_for(config)()
    with pytest.raises(ConnectFailed, match=r"cannot connect to deaf: no answer after 0.05 s"):
        asyncio.run(_opened(async_connector_for(config)))


def test_an_async_tcp_connection_carries_bytes_and_knows_its_end(server: EchoServer) -> None:
    """The async connector gives a reader and a writer; the loop notices when the peer hangs up."""

    async def scenario() -> None:
        connection = await async_connector_for({"host": "127.0.0.1", "port": server.port})()
        connection.writer.write(b"hello")
        assert await connection.reader.readexactly(5) == b"hello"
        assert connection.is_alive()
        assert repr(connection) == f"<AsyncTCPConnection to 127.0.0.1:{server.port}: open>"
        server.hang_up()
        for _ in range(1000):
            if not connection.is_alive():
                break
            await asyncio.sleep(0.005)
        assert not connection.is_alive()
        await connection.close()
        await connection.close()

    asyncio.run(scenario())
