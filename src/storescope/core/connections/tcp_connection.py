"""TCP connections that know whether their peer has gone."""

from __future__ import annotations

import asyncio
import contextlib
import math
import select
import socket

from storescope.core import forks
from storescope.core.connections.service_config import TCPService
from storescope.core.errors import ConnectFailed


def _failed(service: TCPService, error: OSError | ValueError) -> ConnectFailed:
    # asyncio's TimeoutError and the socket module's own differ in text, and one has none.
    if isinstance(error, TimeoutError):
        return ConnectFailed(f"cannot connect to {service}: no answer after {service.connect_timeout:g} s")
    return ConnectFailed(f"cannot connect to {service}: {error}")


def _limit(service: TCPService) -> float | None:
    return None if service.connect_timeout == math.inf else service.connect_timeout


class TCPConnection:
    """A connected `socket`, blocking and without delay of small packets; its owner may set a timeout on it."""

    def __init__(self, service: TCPService, connected: socket.socket) -> None:
        self.socket = connected
        self._service = service
        self._made_in = forks.current_process()
        self._readable = select.poll()
        self._readable.register(connected, select.POLLIN)

    @classmethod
    def open(cls, service: TCPService) -> TCPConnection:
        """Connect, blocking at most `connect_timeout` seconds for each address of the host; ConnectFailed says why."""
        try:
            connected = socket.create_connection((service.host, service.port), _limit(service))
        except (OSError, ValueError) as error:  # the latter for a host that is no name
            raise _failed(service, error) from error
        connected.settimeout(None)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return cls(service, connected)

    def sendall(self, data: bytes) -> None:
        """Send all the bytes; blocks until the system has taken them, or the socket's timeout."""
        forks.check_process(self._made_in, self)
        self.socket.sendall(data)

    def recv(self, size: int) -> bytes:
        """Return what has arrived, at most `size` bytes, b"" at the end; blocks until there is something."""
        forks.check_process(self._made_in, self)
        return self.socket.recv(size)

    def is_alive(self) -> bool:
        """Tell whether the peer has not closed, by a look at the socket that never blocks and takes nothing from it.

        Bytes that wait to be read are no reason against it: read an answer to its end before giving back.
        """
        if self.socket.fileno() < 0 or self._made_in != forks.current_process():
            return False
        try:
            # The look is at what is there already: a timeout that the owner has set would delay a bare recv.
            return not self._readable.poll(0) or self.socket.recv(1, socket.MSG_PEEK) != b""
        except OSError:
            return False

    def close(self) -> None:
        """Close the socket; any number of times."""
        self.socket.close()

    def __repr__(self) -> str:
        return f"<TCPConnection to {self._service}: {'open' if self.is_alive() else 'ended'}>"


class AsyncTCPConnection:
    """A connected pair of `reader` and `writer`, on the event loop that opened it."""

    def __init__(
        self, service: TCPService, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer
        self._service = service

    @classmethod
    async def open(cls, service: TCPService) -> AsyncTCPConnection:
        """Connect, within `connect_timeout` seconds; ConnectFailed says why not."""
        try:
            reader, writer = await asyncio.wait_for(
                asyncio.open_connection(service.host, service.port), _limit(service)
            )
        except (OSError, ValueError, asyncio.TimeoutError) as error:  # the last is no OSError before 3.11
            cause = error if isinstance(error, (OSError, ValueError)) else TimeoutError()
            raise _failed(service, cause) from error
        connected = writer.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return cls(service, reader, writer)

    def is_alive(self) -> bool:
        """Tell whether neither side has closed, from what the event loop has noticed."""
        ended = self.reader.at_eof() or self.reader.exception() is not None
        return not ended and not self.writer.is_closing()

    async def close(self) -> None:
        """Close both directions; any number of times."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    def __repr__(self) -> str:
        return f"<AsyncTCPConnection to {self._service}: {'open' if self.is_alive() else 'ended'}>"
