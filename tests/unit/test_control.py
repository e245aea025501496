"""The agent from code."""

from __future__ import annotations

import os

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

import storescope
from storescope.settings import PID_VARIABLE


def test_a_second_instrument_does_nothing_and_says_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries and programs may both ask for the agent; the process is marked as the launcher would mark it."""
    monkeypatch.setenv(PID_VARIABLE, "")
    providers = TracerProvider(), MeterProvider()
    try:
        storescope.instrument(*providers)
        storescope.instrument(*providers)
        assert os.environ[PID_VARIABLE] == str(os.getpid())
    finally:
        storescope.uninstrument()
    assert caplog.records == []
