"""`mcp.ClientSession`, of whichever release of the MCP SDK is installed, with a server that makes spans of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
from integration.harness import ROOT, STDIO_SERVER, Span, children, named
from integration.recording import Recorder
from integration.stores import Lab1

from storescope import semconv

TRACED_SERVER = ROOT / "tests" / "servers" / "traced.py"

#: Names a Python that has the SDK 2.x, where this one has not.
MCP2_PYTHON = "STORESCOPE_TEST_MCP2_PYTHON"


def sdk_generation() -> int:
    try:
        return int(version("mcp").partition(".")[0])
    except PackageNotFoundError:
        return 0


pytestmark = [
    pytest.mark.mcpsdk,
    pytest.mark.skipif(not sdk_generation(), reason="the MCP SDK is not installed"),
]
ours = pytest.mark.skipif(sdk_generation() != 1, reason="is about mcp 1.x")
theirs = pytest.mark.skipif(sdk_generation() != 2, reason="is about mcp 2.x")


@pytest.fixture(scope="session")
def sdk2_python() -> str:
    """A Python that has the SDK 2.x, for the server."""
    if sdk_generation() == 2:
        return sys.executable
    python = os.environ.get(MCP2_PYTHON)
    if not python:
        pytest.skip(f"{MCP2_PYTHON} names no Python that has the MCP SDK 2.x")
    subprocess.run([python, "-c", "import mcp.server.mcpserver"], check=True)
    return python


Configure = Callable[..., None]
Scenario = Callable[[Any], Awaitable[Any]]


def run(scenario: Scenario, python: str, *command: str) -> Any:
    """Run a scenario with a session that is connected to a server."""
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    async def connected() -> Any:
        parameters = StdioServerParameters(command=python, args=list(command))
        async with stdio_client(parameters) as streams, ClientSession(*streams) as session:
            await session.initialize()
            return await scenario(session)

    return asyncio.run(connected())


def run_in_lab(scenario: Scenario) -> Any:
    return run(scenario, sys.executable, str(STDIO_SERVER))


async def call_echo(session: Any) -> Any:
    return await session.call_tool("echo", {"text": "hi"})


async def call_named(session: Any, tool_name: str, arguments: Any) -> Any:
    """Call a tool, as an application's own helper does; a test names it in `STORESCOPE_TARGETS`."""
    return await session.call_tool(tool_name, arguments)


async def answer(session: Any) -> Any:
    """Do what an application does for its users, with a tool among other things."""
    return await call_echo(session)


def spans_of(server: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.read_text("utf-8").splitlines()]


def one(recorder: Recorder, tool: str) -> Span:
    (span,) = [span for span in recorder.spans() if span.attributes.get(semconv.GEN_AI_TOOL_NAME) == tool]
    return span


def test_a_request_is_one_client_span_and_one_record(recorder: Recorder) -> None:
    """Every request of a session is one span, ours or the SDK's own, with what we know of it, and one record."""
    result = run_in_lab(call_echo)

    span = one(recorder, "echo")
    assert result.content[0].text == "hi"
    assert span.kind == "CLIENT"
    assert span.status == "UNSET"
    assert span.attributes[semconv.MCP_METHOD_NAME] == "tools/call"
    assert span.attributes[semconv.GEN_AI_OPERATION_NAME] == "execute_tool"
    assert span.attributes[semconv.SERVICE_NAME] == "lab-server"
    assert span.attributes[semconv.REQUEST_SIZE] == len("text") + len("hi")
    assert span.attributes[semconv.RESPONSE_SIZE] == len("hi")
    assert span.attributes[semconv.JSONRPC_REQUEST_ID].isdigit()
    assert recorder.count(semconv.CLIENT_OPERATION_DURATION, gen_ai__tool__name="echo") == 1
    methods = [span.attributes[semconv.MCP_METHOD_NAME] for span in recorder.spans()]
    assert methods == ["initialize", "tools/call", *methods[2:]]
    assert set(methods[2:]) <= {"tools/list"}  # by which 1.x checks a result


@ours
def test_with_1x_the_span_is_ours(recorder: Recorder) -> None:
    """Mcp 1.x makes no spans."""
    run_in_lab(call_echo)
    span = one(recorder, "echo")
    assert (span.scope, span.name) == ("storescope", "tools/call echo")


@theirs
def test_with_2x_the_sdks_span_is_enriched(recorder: Recorder) -> None:
    """Mcp 2.x makes spans: they keep name and scope, and there is no second one."""
    run_in_lab(call_echo)
    assert {span.scope for span in recorder.spans()} == {"mcp-python-sdk"}
    assert one(recorder, "echo").name == "MCP send tools/call echo"


@theirs
def test_a_callable_that_is_observed_around_it_has_the_only_span(configure: Configure) -> None:
    """The outermost observer opens the span: what the SDK would make inside is not made."""
    configure(STORESCOPE_TARGETS=f"{__name__}:call_named=tools/call")
    with Recorder() as recorder:

        async def scenario(session: Any) -> Any:
            return await sys.modules[__name__].call_named(session, "echo", {"text": "hi"})

        run_in_lab(scenario)
        (span,) = [
            span for span in recorder.spans() if span.attributes[semconv.MCP_METHOD_NAME] == "tools/call"
        ]
        assert (span.scope, span.name) == ("storescope", "tools/call echo")
        assert span.attributes[semconv.JSONRPC_REQUEST_ID].isdigit()
        assert recorder.count(semconv.CLIENT_OPERATION_DURATION, gen_ai__tool__name="echo") == 1


def test_an_excluded_tool_leaves_no_span_of_the_sdks_either(configure: Configure) -> None:
    """Neither ours nor the SDK's own, whose error text nobody would have redacted."""
    configure(STORESCOPE_EXCLUDED_TOOLS="ech*,rpc_*")
    with Recorder() as recorder:

        async def scenario(session: Any) -> None:
            await session.call_tool("echo", {})
            with pytest.raises(Exception, match="bad params"):
                await session.call_tool("rpc_error", {})
            await session.call_tool("add", {"a": 1, "b": 2})

        run_in_lab(scenario)
        methods = [span.attributes[semconv.MCP_METHOD_NAME] for span in recorder.spans()]
        assert methods.count("tools/call") == 1
        assert one(recorder, "add").status == "UNSET"


@theirs
def test_a_server_in_this_process_is_no_part_of_its_client(recorder: Recorder) -> None:
    """A tool that calls another session in the same process: each request has its span, below its server's."""
    import anyio
    from mcp import ClientSession
    from mcp.server.mcpserver import MCPServer
    from mcp.shared.memory import create_client_server_memory_streams

    leaf, gate = MCPServer("leaf"), MCPServer("gate")
    sessions: dict[str, Any] = {}

    @leaf.tool()
    async def pick(text: str) -> str:
        return text

    @gate.tool()
    async def ask(text: str) -> str:
        answer = await sessions["leaf"].call_tool("pick", {"text": text})
        return str(answer.content[0].text)

    @contextlib.asynccontextmanager
    async def connected(server: MCPServer) -> AsyncIterator[Any]:
        async with (
            create_client_server_memory_streams() as (ours, theirs),
            anyio.create_task_group() as group,
        ):
            inner = server._lowlevel_server
            group.start_soon(inner.run, *theirs, inner.create_initialization_options())
            async with ClientSession(*ours) as session:
                await session.initialize()
                yield session
            group.cancel_scope.cancel()

    async def scenario() -> None:
        async with connected(leaf) as sessions["leaf"], connected(gate) as session:
            await session.call_tool("ask", {"text": "hi"})

    asyncio.run(scenario())
    assert one(recorder, "ask").trace_id == one(recorder, "pick").trace_id
    for tool in ("ask", "pick"):
        assert recorder.count(semconv.CLIENT_OPERATION_DURATION, gen_ai__tool__name=tool) == 1


def test_a_session_without_a_hash_ends_as_before(recorder: Recorder) -> None:
    """A subclass that has lost its hash is not observed, and nothing of ours reaches the application."""
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    class Equal(ClientSession):  # noqa: PLW1641 - that is the point
        def __eq__(self, other: object) -> bool:
            return self is other

    async def scenario() -> Any:
        parameters = StdioServerParameters(command=sys.executable, args=[str(STDIO_SERVER)])
        async with stdio_client(parameters) as outer, ClientSession(*outer) as other:
            await other.initialize()
            async with stdio_client(parameters) as streams, Equal(*streams) as session:
                await session.initialize()
                return await call_echo(session)

    assert asyncio.run(scenario()).content[0].text == "hi"


def test_requests_inside_an_operation_that_the_user_names_are_operations(configure: Configure) -> None:
    """A function of the application's own may do anything: the requests that it sends are told apart below it."""
    configure(STORESCOPE_TARGETS=f"{__name__}:answer=answer")
    with Recorder() as recorder:

        async def scenario(session: Any) -> None:
            await sys.modules[__name__].answer(session)

        run_in_lab(scenario)
        call = one(recorder, "echo")
        assert call.parent_id == named(recorder.spans(), "answer").span_id
        assert recorder.count(semconv.CLIENT_OPERATION_DURATION, gen_ai__tool__name="echo") == 1


@theirs
def test_without_the_agent_the_sdk_is_as_it_was(recorder: Recorder) -> None:
    """After `uninstrument()` the SDK makes and ends its spans itself, by the global provider."""
    recorder.uninstrument()
    run_in_lab(call_echo)
    assert recorder.spans() == []


@pytest.mark.parametrize(
    ("tool", "error_type", "message"),
    [
        ("fail", "tool_error", "no such thing password=[redacted]"),
        ("rpc_error", "-32602", "bad params token: [redacted]"),
    ],
)
def test_errors_are_seen_and_redacted(recorder: Recorder, tool: str, error_type: str, message: str) -> None:
    """`isError` and JSON-RPC errors are errors of span and record; their text is redacted, whoever made the span."""

    async def scenario(session: Any) -> Any:
        return await session.call_tool(tool, {})

    if tool == "fail":
        run_in_lab(scenario)
    else:
        run_in_lab(expecting("bad params", scenario))

    span = one(recorder, tool)
    assert (span.status, span.message) == ("ERROR", message)
    assert span.attributes[semconv.ERROR_TYPE] == error_type
    assert span.events == []
    assert recorder.count(semconv.CLIENT_OPERATION_DURATION, error__type=error_type) == 1


def expecting(message: str, scenario: Scenario) -> Scenario:
    """Expect a scenario to raise: inside the session, outside which the SDK puts exceptions into groups."""

    async def expected(session: Any) -> None:
        with pytest.raises(Exception, match=message):
            await scenario(session)

    return expected


def test_a_timeout_is_one(recorder: Recorder) -> None:
    """The SDK's own deadline is `timeout`, by whichever code the release gives it."""
    from datetime import timedelta

    seconds: Any = 0.2 if sdk_generation() == 2 else timedelta(seconds=0.2)

    async def scenario(session: Any) -> None:
        await session.call_tool("sleep", {"seconds": 2}, read_timeout_seconds=seconds)

    run_in_lab(expecting("imed out", scenario))
    assert one(recorder, "sleep").attributes[semconv.ERROR_TYPE] == "timeout"


def test_a_cancelled_request_is_cancelled(recorder: Recorder) -> None:
    """Cancelling the task ends the span, as cancelled, and reaches the application."""

    async def scenario(session: Any) -> None:
        call = asyncio.create_task(session.call_tool("sleep", {"seconds": 2}))
        await asyncio.sleep(0.1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    run_in_lab(scenario)
    assert one(recorder, "sleep").attributes[semconv.ERROR_TYPE] == "cancelled"


def test_sessions_are_measured(recorder: Recorder) -> None:
    """A session is a record of its duration, by the name that its server gives itself."""
    run_in_lab(call_echo)
    (point,) = recorder.points(semconv.CLIENT_SESSION_DURATION)
    assert point.count == 1
    assert point.attributes[semconv.SERVICE_NAME] == "lab-server"


def test_requests_nest_under_the_callers_span(recorder: Recorder) -> None:
    """The application's span is the parent."""

    async def scenario(session: Any) -> None:
        with recorder.tracer.start_as_current_span("application"):
            await call_echo(session)

    run_in_lab(scenario)
    application = named(recorder.spans(), "application")
    assert one(recorder, "echo") in children(recorder.spans(), application)


def test_an_instrumented_server_joins_the_trace(recorder: Recorder, sdk2_python: str, tmp_path: Path) -> None:
    """The server's own span has our trace, and our span for its parent: for calls, reads, lists and initialize."""
    log = tmp_path / "server.jsonl"

    async def scenario(session: Any) -> None:
        await session.list_tools()
        await call_echo(session)
        await session.read_resource("lab://a")
        await session.get_prompt("hi")

    run(scenario, sdk2_python, str(TRACED_SERVER), str(log))

    theirs_by_parent = {span["parent_id"]: span for span in spans_of(log)}
    for method in ("initialize", "tools/list", "tools/call", "resources/read", "prompts/get"):
        sent = [span for span in recorder.spans() if span.attributes[semconv.MCP_METHOD_NAME] == method]
        for span in sent:
            server = theirs_by_parent[f"0x{span.span_id}"]
            assert server["context"]["trace_id"] == f"0x{span.trace_id}"
            assert server["attributes"]["mcp.method.name"] == method


@ours
def test_what_the_application_sends_along_stays(recorder: Recorder, tmp_path: Path) -> None:
    """Fields that are in `_meta` already are left as they are, and the application's request is not changed."""
    from mcp import types

    log = tmp_path / "wire.jsonl"
    meta = types.RequestParams.Meta(traceparent="mine", tenant="acme")
    params = types.CallToolRequestParams(name="echo", arguments={}, _meta=meta)
    request = types.ClientRequest(types.CallToolRequest(method="tools/call", params=params))
    before = request.model_dump()

    async def scenario(session: Any) -> None:
        await session.send_request(request, types.CallToolResult)

    run(scenario, sys.executable, str(STDIO_SERVER), str(log))
    assert request.model_dump() == before
    (sent,) = [message for message in spans_of(log) if message.get("method") == "tools/call"]
    assert sent["params"]["_meta"] == {"traceparent": "mine", "tenant": "acme"}


@ours
def test_nothing_is_sent_along_where_no_propagator_is_asked_for(recorder: Recorder, tmp_path: Path) -> None:
    """The configured propagators decide what is put into `_meta`: without any, nothing."""
    from opentelemetry.propagate import get_global_textmap, set_global_textmap
    from opentelemetry.propagators.composite import CompositePropagator

    log = tmp_path / "wire.jsonl"
    configured = get_global_textmap()
    set_global_textmap(CompositePropagator([]))
    try:
        run(call_echo, sys.executable, str(STDIO_SERVER), str(log))
    finally:
        set_global_textmap(configured)
    assert all("_meta" not in message.get("params", {}) for message in spans_of(log))


@pytest.mark.mcpstore1
def test_a_server_behind_mcpstore_1_joins_the_trace(
    lab1: Lab1, recorder: Recorder, sdk2_python: str, tmp_path: Path
) -> None:
    """Calls through mcpstore 1.5.x carry the trace to the server, whose span has the CLIENT span for its parent."""
    log = tmp_path / "server.jsonl"
    config = {"name": "traced", "command": sdk2_python, "args": [str(TRACED_SERVER), str(log)]}
    lab1.proxy.add_service(config)
    lab1.proxy.wait_service("traced")
    recorder.clear()
    lab1.context.call_tool("traced_echo", {"text": "hi"})

    (call,) = [span for span in recorder.spans() if span.kind == "CLIENT"]
    below = [span for span in spans_of(log) if span["parent_id"] == f"0x{call.span_id}"]
    assert {span["context"]["trace_id"] for span in below} == {f"0x{call.trace_id}"}
    assert "tools/call echo" in {span["name"] for span in below}
    lab1.proxy.delete_service("traced")


@pytest.mark.mcpstore1
def test_the_sessions_of_a_store_make_no_operations_of_their_own(lab1: Lab1, recorder: Recorder) -> None:
    """What mcpstore 1.5.x sends on its own account, a ping for instance, is no operation of the application's."""
    lab1.context.call_tool("lab_echo", {})
    assert {span.name for span in recorder.spans() if span.kind == "CLIENT"} == {"tools/call echo"}
