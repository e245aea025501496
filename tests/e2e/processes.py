"""Jaeger and the Collector as processes of their own: real programs, the shipped configurations, free ports."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from integration.harness import ROOT

CONFIGURATIONS: Final = ROOT / "collector-config"
BUILD: Final = ROOT / "tests" / "e2e" / "backends" / "build"

#: Longest that anything of a backend is waited for, in seconds; it usually takes less than one.
PATIENCE: Final = 30.0

T = TypeVar("T")


@dataclass(frozen=True)
class Program:
    """A program of the cache: by which variables its configuration is given ports, and how it tells its health."""

    name: str
    ports: tuple[str, ...]
    health_port: str
    health_path: str


JAEGER: Final = Program(
    "jaeger",
    ("JAEGER_OTLP_GRPC_PORT", "JAEGER_OTLP_HTTP_PORT", "JAEGER_QUERY_PORT", "JAEGER_QUERY_GRPC_PORT"),
    "JAEGER_HEALTH_PORT",
    "/status",
)
COLLECTOR: Final = Program(
    "collector",
    ("COLLECTOR_OTLP_GRPC_PORT", "COLLECTOR_OTLP_HTTP_PORT", "COLLECTOR_PROMETHEUS_PORT"),
    "COLLECTOR_HEALTH_PORT",
    "/",
)


@dataclass(frozen=True)
class Backend:
    """A running program and its ports, by the variables that named them."""

    pid: int
    ports: Mapping[str, int]

    def address(self, port: str) -> str:
        return f"127.0.0.1:{self.ports[port]}"

    def url(self, port: str, path: str = "") -> str:
        return f"http://{self.address(port)}{path}"


def command(program: Program, *configurations: str, task: str | None = None) -> list[str]:
    """Return the command that runs a program, or a task of it, with files of `collector-config/`.

    The program is built first where `make e2e` has not built it.
    """
    built = subprocess.run([BUILD], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    tasks = [task] if task else []
    return [
        str(Path(built) / program.name),
        *tasks,
        *(f"--config={CONFIGURATIONS / name}" for name in configurations),
    ]


@contextmanager
def running(program: Program, log: Path, *configurations: str, **env: str) -> Iterator[Backend]:
    """Run a program with files of `collector-config/` until the block is left; it is healthy when the block begins."""
    variables = (*program.ports, program.health_port)
    ports = dict(zip(variables, _free_ports(len(variables)), strict=True))
    health = f"http://127.0.0.1:{ports[program.health_port]}{program.health_path}"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command(program, *configurations),
            env={**{name: str(port) for name, port in ports.items()}, **env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            eventually(lambda: _check_health(process, health, log))
            yield Backend(process.pid, ports)
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def eventually(check: Callable[[], T]) -> T:
    """Return what a check returns, repeating it while it fails, for 30 s at most."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return check()
        except (AssertionError, OSError):
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def fetch(url: str, body: bytes | None = None) -> bytes:
    """Get a URL, or post JSON to it."""
    headers = {"Content-Type": "application/json"} if body else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=PATIENCE) as answer:
            content: bytes = answer.read()
    except urllib.error.HTTPError as error:
        error.close()
        raise
    return content


def _check_health(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    if process.poll() is not None:
        raise RuntimeError(f"{process.args} has ended:\n{log.read_text('utf-8', 'replace')}")
    fetch(url)


def _free_ports(count: int) -> list[int]:
    """Find free ports, all held until the last is found so that they differ."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in sockets]
