"""A Jaeger and a Collector for each test, with the configurations that are shipped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.processes import COLLECTOR, JAEGER, Backend, running

# What it asserts is asserted for several tests, and is to say as much where it fails.
pytest.register_assert_rewrite("e2e.jaeger")


@pytest.fixture
def jaeger(tmp_path: Path) -> Iterator[Backend]:
    """Run Jaeger for one test."""
    with running(JAEGER, tmp_path / "jaeger.log", "jaeger.yaml") as backend:
        yield backend


@pytest.fixture
def collector(jaeger: Backend, tmp_path: Path) -> Iterator[Backend]:
    """Run the Collector for one test, in front of its Jaeger."""
    endpoint = jaeger.address("JAEGER_OTLP_GRPC_PORT")
    log = tmp_path / "collector.log"
    with running(COLLECTOR, log, "collector.yaml", JAEGER_OTLP_ENDPOINT=endpoint) as backend:
        yield backend
