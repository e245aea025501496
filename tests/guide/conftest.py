"""The store that the guide's programs run on: a real one, of whichever generation of mcpstore is installed."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import storescope

FILES_SERVER = Path(__file__).parents[1] / "servers" / "files.py"

#: The name of the service, and how the store's tools are called by whom: `read_file` is `files_read_file` there.
SERVICE = "files"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs mcpstore 1.5.x where that connects to nothing."""
    if version("mcpstore").startswith("1.") and sys.version_info < (3, 11):
        reason = "mcpstore 1.5.18 connects to no service on CPython 3.10, with or without us"
        for item in items:
            if item.get_closest_marker("anystore"):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A context of mcpstore with one service, whose server reads, writes and lists files."""
    from mcpstore import MCPStore

    folder = tmp_path_factory.mktemp("store")
    definitions = folder / "mcp.json"
    definitions.write_text('{"mcpServers": {}}')
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        try:
            from mcpstore._rust import MCPStore as NativeStore
        except ImportError:
            made = MCPStore.setup_store(mcpjson_path=str(definitions)).for_store()
        else:
            made = MCPStore(NativeStore.setup_with_options(str(definitions))).for_store()
        made.add_service({"name": SERVICE, "command": sys.executable, "args": [str(FILES_SERVER)]})
        made.wait_service(SERVICE)
        root.handlers[:] = handlers
        root.setLevel(level)
        yield made
        if hasattr(made, "delete_service"):  # 1.5.x
            made.delete_service(SERVICE)
        else:
            made.find_service(SERVICE).remove_service()


@pytest.fixture
def store(context: Any) -> Any:
    """What the guide calls `store`."""
    return storescope.adapt(context)
