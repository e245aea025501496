"""What every test shares: an environment that asks nothing of the agent, and an interrupt that interrupts."""

from __future__ import annotations

import os
import signal

import pytest


def pytest_configure() -> None:
    """Let SIGINT do what it does in a terminal: a shell starts what runs in its background with SIGINT ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the developer's own settings from the agent."""
    for name in list(os.environ):
        if name.startswith(("OTEL_", "STORESCOPE_")):
            monkeypatch.delenv(name)
