"""A server on the MCP SDK 2.x, which makes spans of its own: `python traced.py SPANS` keeps them as JSON lines."""

from __future__ import annotations

import sys
from pathlib import Path

from mcp.server import MCPServer
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

spans = Path(sys.argv[1]).open("a", buffering=1)  # noqa: SIM115 - until the process ends
provider = TracerProvider()
exporter = ConsoleSpanExporter(out=spans, formatter=lambda span: span.to_json(indent=None) + "\n")
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)

server = MCPServer("traced-server")


@server.tool()
def echo(text: str = "") -> str:
    """Return a text."""
    return text


@server.tool()
def fail(text: str = "") -> str:
    """Fail."""
    raise ValueError(text or "no such thing password=hunter2")


@server.resource("lab://a")
def a() -> str:
    """Return the text of a."""
    return "the text of a"


@server.prompt()
def hi() -> str:
    """Greet."""
    return "hi there"


server.run("stdio")
