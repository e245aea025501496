"""Adapters of stores come in through one door, ours and those of others."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path

import pytest

from storescope.settings import Settings
from storescope.stores import load_adapters

THEIRS = """
class Shelf:
    name = "shelf"
    targets = ()
"""


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package with an adapter, and with one that cannot be loaded."""
    (tmp_path / "shelf_adapter.py").write_text(THEIRS)
    metadata = tmp_path / "shelf-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(
        "[storescope_store]\nshelf = shelf_adapter:Shelf\nbroken = shelf_adapter:Gone\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()


@pytest.mark.usefixtures("theirs")
def test_adapters_of_others_come_in_beside_ours(caplog: pytest.LogCaptureFixture) -> None:
    """An installed package adds a kind of store; one that cannot be loaded is logged once and left out."""
    with caplog.at_level(logging.WARNING):
        names = [adapter.name for adapter in load_adapters(Settings())]

    assert sorted(names) == ["mcp-session", "mcpstore-1", "mcpstore-2", "shelf"]
    (record,) = caplog.records
    assert record.getMessage() == "store adapter 'broken' could not be loaded"


def test_each_agent_has_adapters_of_its_own() -> None:
    """What one agent learned of a process's stores is not carried over to the next."""
    first, second = load_adapters(Settings()), load_adapters(Settings())

    assert not {id(adapter) for adapter in first} & {id(adapter) for adapter in second}
