"""A real redis-server of a test's own, which can be killed, frozen, thawed and started again on the same port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

#: Names the program, and promises that it is there: `.ci/run` sets it. Read before the tests hide it.
PROGRAM = os.environ.get("STORESCOPE_TEST_REDIS_SERVER")


def redis_server_program() -> str:
    """Return the program; the test is skipped where there is none and nobody promised it."""
    if PROGRAM is not None:
        found = shutil.which(PROGRAM)
        assert found is not None, f"STORESCOPE_TEST_REDIS_SERVER names {PROGRAM!r}, which cannot be run"
        return found
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        pytest.skip("there is no redis-server here, and STORESCOPE_TEST_REDIS_SERVER names none")
    return found


class RedisServer:
    """A server on a free port of 127.0.0.1, with a password and without persistence."""

    password = "correct-horse/battery"

    def __init__(self, folder: Path) -> None:
        self._program = redis_server_program()
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """The URL, with the password in the form that URLs need."""
        return f"redis://:{self.password.replace('/', '%2F')}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self._folder),
            "save": "",
            "appendonly": "no",
            "requirepass": self.password,
        }
        command = [self._program, *(word for name, value in options.items() for word in (f"--{name}", value))]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        for _ in range(500):
            assert self._process.poll() is None, (self._folder / "redis.log").read_text()
            if self.asks("PING").startswith(b"-NOAUTH"):
                return
            time.sleep(0.01)
        raise AssertionError("redis-server does not answer")

    def asks(self, command: str) -> bytes:
        """Return what it answers to a command without a password; nothing where it does not."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(f"{command}\r\n".encode())
                return connection.recv(200)
        except OSError:
            return b""

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop it in the middle of what it does: it takes connections still, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
