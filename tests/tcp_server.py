"""A TCP server that echoes lines, goes away and comes back; and connections to it as a pool's factory makes them."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class TCPServer:
    """Echoes each line, on one port for as long as it lives. `open` is what the server holds itself."""

    def __init__(self) -> None:
        self.open: set[socket.socket] = set()
        self.accepted = 0
        self.port = 0
        #: Cleared, the server still accepts, and answers nothing.
        self.answering = threading.Event()
        self.answering.set()
        self._changed = threading.Condition()
        self.start()

    @property
    def config(self) -> dict[str, object]:
        """The service config of it."""
        return {"host": "127.0.0.1", "port": self.port}

    def start(self) -> None:
        """Listen, on the same port as before."""
        self._away = False
        self._listener = socket.create_server(("127.0.0.1", self.port), reuse_port=False)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def kill(self) -> None:
        """Break every connection, and refuse new ones."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._changed:
            self._away = True
            for connected in self.open:
                with suppress(OSError):
                    connected.shutdown(socket.SHUT_RDWR)
        assert self.comes_to(0)

    def comes_to(self, number: int, timeout: float = 10.0) -> bool:
        """Wait until the server holds so many connections."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.open) == number, timeout)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connected, _ = listener.accept()
                with self._changed:
                    if self._away or listener is not self._listener:  # killed since it was accepted
                        connected.close()
                        return
                    self.open.add(connected)
                    self.accepted += 1
                    self._changed.notify_all()
                threading.Thread(target=self._echo, args=(connected,), daemon=True).start()

    def _echo(self, connected: socket.socket) -> None:
        with connected, suppress(OSError), connected.makefile("rwb", buffering=0) as lines:
            for line in lines:
                self.answering.wait()
                lines.write(line)
        with self._changed:
            self.open.discard(connected)
            self._changed.notify_all()


@contextmanager
def tcp_server() -> Iterator[TCPServer]:
    """A server for the time of a block."""
    server = TCPServer()
    try:
        yield server
    finally:
        server.answering.set()
        server.kill()


class Line:
    """A connection whose flag falls when the server does not answer."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.alive = True

    def echo(self, text: str) -> str:
        try:
            self.socket.sendall(text.encode() + b"\n")
            answer = self.socket.recv(1024)
        except OSError:
            self.alive = False
            raise
        if not answer:
            self.alive = False
            raise ConnectionError("the server has closed the connection")
        return answer.decode().strip()

    def ping(self) -> None:
        self.echo("ping")

    def is_alive(self) -> bool:
        return self.alive

    def close(self) -> None:
        self.alive = False
        self.socket.close()


class AsyncLine:
    """The same for asyncio."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.alive = True

    @classmethod
    async def connect(cls, port: int) -> AsyncLine:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def echo(self, text: str) -> str:
        try:
            self.writer.write(text.encode() + b"\n")
            answer = await self.reader.readline()
        except OSError:
            self.alive = False
            raise
        if not answer:
            self.alive = False
            raise ConnectionError("the server has closed the connection")
        return answer.decode().strip()

    async def ping(self) -> None:
        await self.echo("ping")

    def is_alive(self) -> bool:
        return self.alive

    async def close(self) -> None:
        self.alive = False
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()
