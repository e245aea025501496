"""What it costs to send the trace along with a request of mcp 1.x, against the same written by hand.

Runs in the environment of mcpstore 1.5.18: `python -m tests.benchmarks.propagation` prints its row as a JSON line.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.payloads import compare
from tests.benchmarks.row import Row

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-v1" / "bin" / "python"


def rows() -> Iterator[Row]:
    """Measure where mcp 1.x is."""
    command = [str(PYTHON), "-m", "tests.benchmarks.propagation"]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout
    yield Row(**json.loads(printed))


def _measure() -> Row:
    from mcp import types
    from opentelemetry import trace
    from opentelemetry.propagate import inject
    from opentelemetry.sdk.trace import TracerProvider

    from storescope.stores.mcp_session import TARGETS

    carry = TARGETS[0].carry
    assert carry is not None
    context = trace.set_span_in_context(TracerProvider().get_tracer("benchmark").start_span("call"))
    params = types.CallToolRequestParams(name="echo", arguments={"text": "hello"})
    request = types.ClientRequest(types.CallToolRequest(method="tools/call", params=params))

    def ours() -> object:
        fields: dict[str, str] = {}
        inject(fields, context)
        return carry(fields, (request,), {})

    def by_hand() -> object:
        fields: dict[str, Any] = {}
        inject(fields, context)
        meta = types.RequestParams.Meta(**fields)
        own = types.CallToolRequestParams(name=params.name, arguments=params.arguments, _meta=meta)
        return types.ClientRequest(types.CallToolRequest(method="tools/call", params=own))

    return compare("trace context into a request of mcp 1.x", ours, by_hand, 1.15)


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(_measure())))
