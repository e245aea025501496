"""What every test shares: an environment that asks nothing of the agent."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the developer's own settings from the agent."""
    for name in list(os.environ):
        if name.startswith(("OTEL_", "STORESCOPE_")):
            monkeypatch.delenv(name)
