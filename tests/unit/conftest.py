"""What several unit tests stand on: an observed module of callables, and the warnings that it gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.desk import Desk, Warnings, a_desk


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    with a_desk(tmp_path, monkeypatch) as bench:
        yield bench


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Warnings:
    return Warnings(caplog)
