"""Real stores with real servers, in this process or in one of their own."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from integration.harness import HTTP_SERVER, Runner
from integration.recording import Recorder
from integration.stores import Lab, Lab1

from storescope.settings import process_settings


def store_generation() -> str:
    """Return the marker of the mcpstore release that is installed here."""
    try:
        return f"mcpstore{version('mcpstore').partition('.')[0]}"
    except PackageNotFoundError:
        return "none"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that are about another generation of mcpstore than the installed one."""
    other = {"mcpstore1", "mcpstore2"} - {store_generation()}
    left_out = [item for item in items if any(item.get_closest_marker(marker) for marker in other)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    if store_generation() == "mcpstore1" and sys.version_info < (3, 11):
        cannot = pytest.mark.skip(
            reason="mcpstore 1.5.18 connects to no service on CPython 3.10, with or without us"
        )
        for item in items:
            if item.get_closest_marker("mcpstore1") or item.get_closest_marker("anystore"):
                item.add_marker(cannot)


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the stores of this process a home of their own: they write into it."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Put the root logger back: `setup_store()` takes its handlers away and silences it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(autouse=True)
def configure(
    bare_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., None]]:
    """Give the agent of this process a folder, and what else a test asks for before it is instrumented."""

    def set_variables(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        process_settings.cache_clear()

    set_variables(STORESCOPE_DIR=str(tmp_path_factory.getbasetemp() / "telemetry"))
    yield set_variables
    process_settings.cache_clear()


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """Run programs under the launcher, in folders of this test."""
    return Runner(tmp_path)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """Observe the stores of this process, in memory."""
    with Recorder() as recording:
        yield recording


@pytest.fixture
def http_url(tmp_path: Path) -> Iterator[str]:
    """Run the test server over HTTP and return its URL."""
    command = [sys.executable, str(HTTP_SERVER), str(tmp_path / "http.log")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}/mcp"
        server.kill()


@pytest.fixture
def lab(tmp_path: Path, recorder: Recorder) -> Iterator[Lab]:
    """An observed store of mcpstore 2.x; what its set-up recorded is forgotten."""
    laboratory = Lab(tmp_path)
    laboratory.wire.clear()
    recorder.clear()
    yield laboratory
    laboratory.close()


@pytest.fixture
def lab1(tmp_path: Path, recorder: Recorder) -> Iterator[Lab1]:
    """An observed store of mcpstore 1.5.x; what its set-up recorded is forgotten."""
    laboratory = Lab1(tmp_path)
    laboratory.wire.clear()
    recorder.clear()
    yield laboratory
    laboratory.close()
