"""mcpstore 1.5.x: one operation, its phases below it, and the failures that the store hides."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from integration.harness import Span, children, named
from integration.recording import Recorder
from integration.stores import SERVICE, Lab1, stdio_config

from storescope import semconv

pytestmark = pytest.mark.mcpstore1

REQUESTS = semconv.CLIENT_OPERATION_DURATION
OPERATIONS = semconv.OPERATION_DURATION
SESSIONS = semconv.CLIENT_SESSION_DURATION

ECHO = {
    "mcp.method.name": "tools/call",
    "gen_ai.operation.name": "execute_tool",
    "gen_ai.tool.name": "echo",
    "storescope.service.name": SERVICE,
    "network.transport": "pipe",
    "mcp.protocol.version": "2025-11-25",
}
#: The phases of a call outside a session: each call connects anew.
STATELESS = ["connect", "list", "call"]

Act = Callable[[Lab1], Any]
CALLS: dict[str, tuple[Act, str | None]] = {
    "proxy": (lambda lab: lab.proxy.call_tool("lab_echo", {"text": "hi"}), "lab_echo"),
    "proxy, bare name": (lambda lab: lab.proxy.call_tool("echo", {"text": "hi"}), None),
    "context": (lambda lab: lab.context.call_tool("lab_echo", {"text": "hi"}), "lab_echo"),
    "context, by keyword": (
        lambda lab: lab.context.call_tool(args={"text": "hi"}, tool_name="lab_echo"),
        "lab_echo",
    ),
    "context, async": (
        lambda lab: asyncio.run(lab.context.call_tool_async("lab_echo", {"text": "hi"})),
        "lab_echo",
    ),
    "tool": (lambda lab: lab.proxy.find_tool("lab_echo").call_tool({"text": "hi"}), "lab_echo"),
    "service": (lambda lab: lab.proxy.find_service(SERVICE).call_tool("echo", {"text": "hi"}), None),
}


def phases(spans: list[Span], parent: Span) -> list[str]:
    return [span.attributes[semconv.PHASE] for span in children(spans, parent)]


def call_of(recorder: Recorder) -> Span:
    """Return the only CLIENT span."""
    (span,) = [span for span in recorder.spans() if span.kind == "CLIENT"]
    return span


@pytest.mark.parametrize("face", CALLS)
def test_a_tool_call_is_one_client_span_with_its_phases(lab1: Lab1, recorder: Recorder, face: str) -> None:
    """By any face a call is one CLIENT span and one record, with connect, initialize, list and call below it."""
    act, alias = CALLS[face]
    result = act(lab1)

    assert result.content[0].text == "hi"
    call = call_of(recorder)
    assert (call.name, call.status, call.scope) == ("tools/call echo", "UNSET", "storescope")
    assert ECHO.items() <= call.attributes.items()
    assert call.attributes.get(semconv.TOOL_ALIAS) == alias
    assert call.attributes[semconv.STORE_SCOPE] == "store"
    spans = [span for span in recorder.spans() if span.trace_id == call.trace_id]
    assert phases(spans, call) == STATELESS
    connect = named(spans, "connect")
    assert phases(spans, connect) == ["initialize"]
    assert {span.kind for span in spans if span is not call and span.span_id != call.span_id} == {"INTERNAL"}
    (point,) = recorder.points(REQUESTS)
    assert (point.count, dict(point.attributes)) == (1, ECHO)


def test_the_stores_own_spans_are_not_doubled(lab1: Lab1, recorder: Recorder) -> None:
    """1.5.18 has a tracer of its own; inside an operation of ours it makes no span."""
    from opentelemetry import trace

    lab1.proxy.call_tool("lab_echo", {})

    assert {span.scope for span in recorder.spans()} == {"storescope"}
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def test_the_request_number_is_the_wires(lab1: Lab1, recorder: Recorder) -> None:
    """`jsonrpc.request.id` is the id of the request that the application asked for."""
    lab1.proxy.call_tool("lab_echo", {})

    (sent,) = [message for message in lab1.wire.messages() if message.get("method") == "tools/call"]
    assert call_of(recorder).attributes["jsonrpc.request.id"] == str(sent["id"])


def test_sizes_count_text_as_utf8(lab1: Lab1, recorder: Recorder) -> None:
    """Request and response size are the UTF-8 lengths of what was sent and what came back."""
    lab1.proxy.call_tool("lab_echo", {"text": "héé"})

    call = call_of(recorder)
    assert call.attributes[semconv.REQUEST_SIZE] == len("text") + 5
    assert call.attributes[semconv.RESPONSE_SIZE] == 5


FAILURES: dict[str, tuple[Act, str, bool]] = {
    "the tool says so": (lambda lab: lab.proxy.call_tool("lab_fail", {}), "tool_error", True),
    "JSON-RPC error": (lambda lab: lab.proxy.call_tool("lab_rpc_error", {}), "-32602", True),
    "server dies": (lambda lab: lab.proxy.call_tool("lab_die", {}), "connection_closed", True),
    "timeout": (
        lambda lab: lab.context.call_tool("lab_sleep", {"seconds": 5}, timeout=0.2),
        "timeout",
        True,
    ),
    "unknown tool": (lambda lab: lab.proxy.call_tool("lab_echoo", {}), "tool_not_found", False),
    "async": (lambda lab: asyncio.run(lab.context.call_tool_async("lab_fail", {})), "tool_error", True),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_hidden_failure_has_its_error_type(lab1: Lab1, recorder: Recorder, failure: str) -> None:
    """The store hides failures in results; span and record have the type of what happened below."""
    act, error_type, sent = FAILURES[failure]
    result = act(lab1)

    assert result.is_error
    call = call_of(recorder)
    assert (call.status, call.attributes["error.type"]) == ("ERROR", error_type)
    assert "hunter2" not in call.message
    assert "s3cr3t" not in call.message
    assert recorder.count(REQUESTS if sent else OPERATIONS, error__type=error_type) == 1
    assert recorder.count(REQUESTS) == int(sent)


def test_a_json_rpc_error_keeps_its_code(lab1: Lab1, recorder: Recorder) -> None:
    """The code is in `rpc.response.status_code` as well."""
    lab1.proxy.call_tool("lab_rpc_error", {})

    assert call_of(recorder).attributes["rpc.response.status_code"] == "-32602"


def test_a_store_without_services_finds_none(lab1: Lab1, recorder: Recorder) -> None:
    """A call in a store that has no service at all is `service_not_found`."""
    result = lab1.store.for_agent("nobody").call_tool("lab_echo", {})

    assert result.is_error
    assert call_of(recorder).attributes["error.type"] == "service_not_found"


def test_results_are_passed_on(lab1: Lab1, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application gets the very object that the store made, and a coroutine where the store gives one."""
    import inspect

    from mcpstore.core.context.base_context import MCPStoreContext

    given: list[Any] = []
    original = MCPStoreContext.call_tool_async.__wrapped__

    async def spy(self: Any, *args: Any, **kwargs: Any) -> Any:
        given.append(await original(self, *args, **kwargs))
        return given[-1]

    recorder.uninstrument()
    monkeypatch.setattr("mcpstore.core.context.tool_operations.ToolOperationsMixin.call_tool_async", spy)
    recorder.instrument()
    coroutine = lab1.context.call_tool_async("lab_echo", {})
    assert inspect.iscoroutine(coroutine)
    assert inspect.iscoroutinefunction(lab1.context.call_tool_async)
    assert asyncio.run(coroutine) is given[0]
    recorder.uninstrument()


def test_a_cancelled_call_is_closed(lab1: Lab1, recorder: Recorder) -> None:
    """A call whose task is cancelled ends as `cancelled`, and the task with it."""

    async def scenario() -> None:
        task = asyncio.ensure_future(lab1.context.call_tool_async("lab_sleep", {"seconds": 5}))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())

    call = call_of(recorder)
    assert (call.name, call.status) == ("tools/call sleep", "ERROR")
    assert call.attributes["error.type"] == "cancelled"


def test_service_operations_are_internal_spans(recorder: Recorder, tmp_path: Path) -> None:
    """Set-up, add, wait, list and delete are INTERNAL spans without `mcp.*`; a list from memory is a hit."""
    lab = Lab1(tmp_path)
    lab.proxy.list_tools()
    lab.close()

    operations = [span for span in recorder.spans() if semconv.STORE_OPERATION in span.attributes]
    assert [span.name for span in operations] == [
        "setup_store",
        "add_service lab",
        "wait_service lab",
        "list_tools",
        "remove_service lab",
    ]
    for span in operations:
        assert span.kind == "INTERNAL"
        assert not [key for key in span.attributes if key.startswith(("mcp.", "gen_ai."))]
        hit = "hit" if span.name == "list_tools" else None
        assert span.attributes.get(semconv.CACHE_RESULT) == hit
    assert not recorder.points(REQUESTS)
    assert recorder.count(OPERATIONS) == len(operations)


READS: dict[str, tuple[Act, str]] = {
    "resources": (lambda lab: lab.proxy.list_resources(SERVICE), "resources/list"),
    "templates": (lambda lab: lab.proxy.list_resource_templates(SERVICE), "resources/templates/list"),
    "prompts": (lambda lab: lab.proxy.list_prompts(SERVICE), "prompts/list"),
    "resource": (lambda lab: lab.proxy.read_resource("lab://a", SERVICE), "resources/read"),
    "prompt": (lambda lab: lab.proxy.get_prompt("hi", {}, SERVICE), "prompts/get hi"),
}


@pytest.mark.parametrize("read", READS)
def test_reads_are_client_spans(lab1: Lab1, recorder: Recorder, read: str) -> None:
    """Lists, reads and prompts go to the server: CLIENT spans with their phases, and records."""
    act, name = READS[read]
    assert act(lab1)["success"] is True

    span = call_of(recorder)
    assert (span.name, span.status) == (name, "UNSET")
    assert span.attributes[semconv.SERVICE_NAME] == SERVICE
    assert span.attributes[semconv.NETWORK_TRANSPORT] == "pipe"
    assert recorder.count(REQUESTS, mcp__method__name=name.partition(" ")[0]) == 1


def test_a_session_is_connected_once(lab1: Lab1, recorder: Recorder) -> None:
    """In a session a call does not connect; binding did. The session's calls have rising request numbers."""
    session = lab1.proxy.create_session("s1")
    session.bind_service(SERVICE)
    session.use_tool("lab_echo", {"text": "a"})
    session.use_tool("lab_echo", {"text": "b"})
    spans = recorder.spans()
    session.close_session()

    assert phases(spans, named(spans, "bind_service lab")) == ["connect"]
    first, second = [span for span in spans if span.kind == "CLIENT"]
    assert phases(spans, first) == phases(spans, second) == ["list", "call"]
    assert int(first.attributes["jsonrpc.request.id"]) < int(second.attributes["jsonrpc.request.id"])


def test_mcp_sessions_are_measured(lab1: Lab1, recorder: Recorder) -> None:
    """Both ends of an MCP session are visible here: each that ends is one record of its duration."""
    before = recorder.count(SESSIONS)
    lab1.proxy.call_tool("lab_echo", {})

    # The store's own health checks connect as well.
    assert recorder.count(SESSIONS) > before
    for point in recorder.points(SESSIONS):
        assert point.attributes["network.transport"] == "pipe"
        assert tuple(point.bounds) == semconv.DURATION_BUCKETS


def test_a_service_over_http_is_named_by_host_and_port(lab1: Lab1, recorder: Recorder, http_url: str) -> None:
    """A server behind a URL shows its address and port; path and query are left out, and its session id is known."""
    lab1.proxy.add_service({"name": "web", "url": f"{http_url}?key=hunter2"})
    lab1.proxy.wait_service("web")
    recorder.clear()
    lab1.proxy.call_tool("web_echo", {"text": "hi"})

    attributes = call_of(recorder).attributes
    assert attributes["network.transport"] == "tcp"
    assert (attributes["server.address"], attributes["server.port"]) == (
        "127.0.0.1",
        int(http_url.split(":")[2].partition("/")[0]),
    )
    assert attributes["mcp.session.id"] == "lab-session"
    assert "hunter2" not in str(recorder.spans())
    assert all("mcp.session.id" not in point.attributes for point in recorder.points())
    lab1.proxy.delete_service("web")


def test_an_agent_has_its_own_service(lab1: Lab1, recorder: Recorder, tmp_path: Path) -> None:
    """An agent's call names the agent, and its service by the agent's own name for it."""
    agent = lab1.store.for_agent("bob")
    agent.add_service(stdio_config(tmp_path / "bob.jsonl", "bobs"))
    agent.wait_service("bobs")
    recorder.clear()
    agent.call_tool("bobs_echo", {"text": "hi"})

    attributes = call_of(recorder).attributes
    assert (attributes[semconv.STORE_SCOPE], attributes[semconv.AGENT_ID]) == ("agent", "bob")
    assert (attributes[semconv.SERVICE_NAME], attributes[semconv.TOOL_ALIAS]) == ("bobs", "bobs_echo")
    agent.delete_service("bobs")


def test_spans_nest_through_the_bridge_thread(lab1: Lab1, recorder: Recorder) -> None:
    """The store does its work on a thread of its own: the caller's span is the parent all the same."""
    with recorder.tracer.start_as_current_span("caller"):
        lab1.proxy.call_tool("lab_echo", {})
        context = contextvars.copy_context()
        thread = threading.Thread(target=lambda: context.run(lab1.proxy.call_tool, "lab_add", {}))
        thread.start()
        thread.join()

    spans = recorder.spans()
    names = [span.name for span in children(spans, named(spans, "caller"))]
    assert names == ["tools/call echo", "tools/call add"]


def test_spans_nest_in_asyncio_tasks(lab1: Lab1, recorder: Recorder) -> None:
    """Concurrent calls are siblings below the span that started them, each with its own phases."""

    async def scenario() -> None:
        with recorder.tracer.start_as_current_span("caller"):
            calls = [lab1.context.call_tool_async("lab_echo", {"text": str(number)}) for number in range(3)]
            await asyncio.gather(*calls)

    asyncio.run(scenario())

    spans = recorder.spans()
    calls = children(spans, named(spans, "caller"))
    assert [call.name for call in calls] == ["tools/call echo"] * 3
    for call in calls:
        assert phases(spans, call) == STATELESS


def test_undoing_leaves_a_store_that_works(lab1: Lab1, recorder: Recorder) -> None:
    """After `uninstrument()` nothing is recorded, and after a second `instrument()` each call once."""
    recorder.uninstrument()
    assert lab1.proxy.call_tool("lab_echo", {"text": "hi"}).content[0].text == "hi"
    # A health check that had begun before may end now.
    assert [span for span in recorder.spans() if span.kind == "CLIENT"] == []
    recorder.instrument()
    lab1.proxy.call_tool("lab_echo", {})
    assert call_of(recorder).name == "tools/call echo"
