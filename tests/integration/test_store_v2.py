"""mcpstore 2.x: one operation is one span and one record, whatever face of the store was called."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from integration.harness import children, named
from integration.recording import Recorder
from integration.stores import SERVICE, Lab, run_async, stdio_config

from storescope import semconv

pytestmark = pytest.mark.mcpstore2

REQUESTS = semconv.CLIENT_OPERATION_DURATION
OPERATIONS = semconv.OPERATION_DURATION

#: What every span of a request to the test server over stdio has.
REQUEST = {
    "storescope.service.name": SERVICE,
    "storescope.store.scope": "store",
    "network.transport": "pipe",
    "mcp.protocol.version": "2025-11-25",
}
ECHO = {
    **REQUEST,
    "mcp.method.name": "tools/call",
    "gen_ai.operation.name": "execute_tool",
    "gen_ai.tool.name": "echo",
}
#: Attributes that depend on the payload or the moment.
VARIABLE = {semconv.THREAD_CPU_TIME, semconv.REQUEST_SIZE, semconv.RESPONSE_SIZE, semconv.CALL_DIGEST}

Act = Callable[[Lab], Any]


def fixed(attributes: Any) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if key not in VARIABLE}


CALLS: dict[str, Act] = {
    "context": lambda lab: lab.context.call_tool("lab_echo", {"text": "hi"}),
    "context, by keyword": lambda lab: lab.context.call_tool(args={"text": "hi"}, tool_name="lab_echo"),
    "context, bare name": lambda lab: lab.context.call_tool("echo", {"text": "hi"}),
    "tool": lambda lab: lab.context.find_tool("lab_echo").call({"text": "hi"}),
    "tool of a service": lambda lab: lab.context.find_service(SERVICE).find_tool("echo").call({"text": "hi"}),
    "store": lambda lab: lab.store.call_tool(lab.instance_id, "echo", {"text": "hi"}),
    "native store, by keyword": lambda lab: lab.native.call_tool(
        args={"text": "hi"}, tool_name="echo", instance_id=lab.instance_id
    ),
    "session": lambda lab: lab.session().call_tool(lab.instance_id, "echo", {"text": "hi"}),
}


@pytest.mark.parametrize("face", CALLS)
def test_a_tool_call_is_one_client_span_and_one_record(lab: Lab, recorder: Recorder, face: str) -> None:
    """A tool call by any face of the store is one CLIENT span by the MCP conventions, and one record."""
    result = CALLS[face](lab)

    assert result["content"][0]["text"] == "hi"
    assert lab.wire.methods() == ["tools/call"]
    (span,) = [span for span in recorder.spans() if span.kind == "CLIENT"]
    alias = {semconv.TOOL_ALIAS: "lab_echo"} if face in ("context", "context, by keyword") else {}
    assert (span.name, span.status, span.scope) == ("tools/call echo", "UNSET", "storescope")
    assert fixed(span.attributes) == {**ECHO, **alias}
    (point,) = recorder.points(REQUESTS)
    expected = {key: value for key, value in ECHO.items() if key != semconv.STORE_SCOPE}
    assert (point.count, point.attributes, point.unit) == (1, expected, "s")
    assert tuple(point.bounds) == semconv.DURATION_BUCKETS
    assert 0 < point.total <= span.seconds


def service_of(lab: Lab) -> Any:
    return lab.context.find_service(SERVICE)


#: A read by one face of the store: what is done, the span's name, and what its attributes add to the usual ones.
READS: dict[str, tuple[Act, str, dict[str, str]]] = {
    "context: resources": (lambda lab: lab.context.list_resources(), "resources/list", {}),
    "context: templates": (lambda lab: lab.context.list_resource_templates(), "resources/templates/list", {}),
    "context: prompts": (lambda lab: lab.context.list_prompts(), "prompts/list", {}),
    "service: resources": (lambda lab: service_of(lab).list_resources(), "resources/list", REQUEST),
    "service: templates": (
        lambda lab: service_of(lab).list_resource_templates(),
        "resources/templates/list",
        REQUEST,
    ),
    "service: prompts": (lambda lab: service_of(lab).list_prompts(), "prompts/list", REQUEST),
    "service: find a resource": (
        lambda lab: service_of(lab).find_resource("lab://a"),
        "resources/list",
        REQUEST,
    ),
    "service: find a prompt": (lambda lab: service_of(lab).find_prompt("hi"), "prompts/list", REQUEST),
    "service: read": (
        lambda lab: service_of(lab).read_resource("lab://a"),
        "resources/read",
        {**REQUEST, "mcp.resource.uri": "lab://a"},
    ),
    "store: read": (
        lambda lab: lab.store.read_resource(lab.instance_id, "lab://a"),
        "resources/read",
        {**REQUEST, "mcp.resource.uri": "lab://a"},
    ),
    "service: prompt": (
        lambda lab: service_of(lab).get_prompt("hi"),
        "prompts/get hi",
        {**REQUEST, "gen_ai.prompt.name": "hi"},
    ),
    "store: prompt": (
        lambda lab: lab.store.get_prompt(lab.instance_id, "hi"),
        "prompts/get hi",
        {**REQUEST, "gen_ai.prompt.name": "hi"},
    ),
    "store: changed tools": (
        lambda lab: lab.store.list_changed_tools(lab.instance_id, force_refresh=True),
        "tools/list",
        REQUEST,
    ),
}


@pytest.mark.parametrize("face", READS)
def test_a_read_is_one_client_span_and_one_record(lab: Lab, recorder: Recorder, face: str) -> None:
    """Lists, reads and prompts are CLIENT spans named by method and prompt, never by the resource's URI."""
    act, name, attributes = READS[face]
    act(lab)

    span = recorder.span()
    method = name.partition(" ")[0]
    assert (span.kind, span.name) == ("CLIENT", name)
    assert fixed(span.attributes) == {
        "storescope.store.scope": "store",
        "mcp.method.name": method,
        **attributes,
    }
    (point,) = recorder.points(REQUESTS)
    assert point.count == 1
    assert not {"mcp.resource.uri", "storescope.store.scope"} & point.attributes.keys()
    assert method in lab.wire.methods()


def test_a_held_resource_is_read_without_a_request_of_ours(lab: Lab, recorder: Recorder) -> None:
    """A `Resource` or `Prompt` has to ask the server for its own name: the agent does not make it."""
    service = lab.context.find_service(SERVICE)
    resource, prompt = service.find_resource("lab://a"), service.find_prompt("hi")
    lab.wire.clear()
    recorder.clear()

    resource.read()
    prompt.get()

    with_agent = lab.wire.methods()
    recorder.uninstrument()
    lab.wire.clear()
    resource.read()
    prompt.get()
    assert with_agent == lab.wire.methods()
    read, got = recorder.spans()
    assert (read.name, read.attributes["mcp.resource.uri"]) == ("resources/read", "lab://a")
    assert got.name == "prompts/get"


OPERATIONS_OF_THE_STORE: dict[str, tuple[Act, str]] = {
    "wait_service": (lambda lab: lab.context.wait_service(SERVICE), "wait_service lab"),
    "restart_service": (lambda lab: service_of(lab).restart_service(), "restart_service lab"),
    "disconnect_service": (
        lambda lab: lab.context.disconnect_service(service_name=SERVICE),
        "disconnect_service lab",
    ),
    "patch_service": (lambda lab: service_of(lab).patch_service({"env": {"A": "b"}}), "patch_service lab"),
    "update_service": (
        lambda lab: service_of(lab).update_service(
            {key: value for key, value in stdio_config(lab.wire.path).items() if key != "name"}
        ),
        "update_service lab",
    ),
    "add_service": (
        lambda lab: lab.context.add_service(stdio_config(lab.wire.path, "second")),
        "add_service second",
    ),
    "remove_service": (lambda lab: service_of(lab).remove_service(), "remove_service lab"),
    "create_session": (lambda lab: lab.store.create_session("s2"), "create_session"),
    "check_instances": (lambda lab: lab.store.check_instances([lab.instance_id]), "check_instances"),
    "reset_config": (lambda lab: lab.context.reset_config(), "reset_config"),
}


@pytest.mark.parametrize("operation", OPERATIONS_OF_THE_STORE)
def test_an_operation_of_the_store_is_an_internal_span(lab: Lab, recorder: Recorder, operation: str) -> None:
    """What is no MCP request is an INTERNAL span without `mcp.*`, and no record among the requests."""
    act, name = OPERATIONS_OF_THE_STORE[operation]
    before = recorder.count(OPERATIONS, storescope__store__operation=operation)
    act(lab)

    span = recorder.span()
    assert (span.kind, span.name, span.status) == ("INTERNAL", name, "UNSET")
    assert span.attributes[semconv.STORE_OPERATION] == operation
    assert not [key for key in span.attributes if key.startswith(("mcp.", "gen_ai.", "network."))]
    assert recorder.count(OPERATIONS, storescope__store__operation=operation) == before + 1
    assert not recorder.points(REQUESTS)


def test_setting_up_a_store_is_an_operation(tmp_path: Path, recorder: Recorder) -> None:
    """`setup_store()`, a static method of the native class, and what it connects on the way are INTERNAL spans."""
    lab = Lab(tmp_path)

    names = [span.name for span in recorder.spans()]
    assert names == ["setup_store", "add_service lab", "wait_service lab"]
    assert {span.kind for span in recorder.spans()} == {"INTERNAL"}
    lab.close()


LISTS_FROM_MEMORY: dict[str, Act] = {
    "list_tools": lambda lab: lab.context.list_tools(),
    "list_tools lab": lambda lab: lab.store.list_tools(lab.instance_id),
    "list_tool_entries lab": lambda lab: lab.store.list_tool_entries(lab.instance_id),
}


@pytest.mark.parametrize("name", LISTS_FROM_MEMORY)
def test_a_list_from_memory_is_a_cache_hit(lab: Lab, recorder: Recorder, name: str) -> None:
    """A list that the store answers from its memory is an INTERNAL span that says so, and never an MCP record."""
    LISTS_FROM_MEMORY[name](lab)

    span = recorder.span()
    assert lab.wire.methods() == []
    assert (span.kind, span.name) == ("INTERNAL", name)
    assert span.attributes[semconv.CACHE_RESULT] == "hit"
    operation = name.partition(" ")[0]
    assert (
        recorder.count(OPERATIONS, storescope__store__operation=operation, storescope__cache__result="hit")
        == 1
    )
    assert not recorder.points(REQUESTS)


def test_sessions_of_the_store_are_no_mcp_sessions(lab: Lab, recorder: Recorder) -> None:
    """A session's life is a row of operations; `mcp.client.session.duration` is not recorded for it."""
    session = lab.session()
    session.list_tools()
    session.call_tool(lab.instance_id, "echo", {})
    session.unbind_service(lab.instance_id)
    session.close()

    assert [span.name for span in recorder.spans()] == [
        "create_session",
        "bind_service_to_session lab",
        "list_tools_in_session",
        "tools/call echo",
        "unbind_service_from_session lab",
        "close_session",
    ]
    assert not recorder.points(semconv.CLIENT_SESSION_DURATION)


def test_an_agent_is_named_on_spans_and_not_on_records(lab: Lab, recorder: Recorder, tmp_path: Path) -> None:
    """Scope and agent are on the span of a call; metrics carry neither."""
    agent = lab.store.for_agent("bob")
    agent.add_service(stdio_config(tmp_path / "bob.jsonl", "bobs"))
    agent.wait_service("bobs")
    recorder.clear()
    agent.call_tool("bobs_echo", {"text": "hi"})

    span = recorder.span()
    assert (span.attributes[semconv.STORE_SCOPE], span.attributes[semconv.AGENT_ID]) == ("agent", "bob")
    assert (span.attributes[semconv.SERVICE_NAME], span.attributes[semconv.TOOL_ALIAS]) == (
        "bobs",
        "bobs_echo",
    )
    (point,) = recorder.points(REQUESTS)
    assert not {semconv.STORE_SCOPE, semconv.AGENT_ID, semconv.TOOL_ALIAS} & point.attributes.keys()
    agent.remove_service(service_name="bobs")


def test_a_service_over_http_is_named_by_host_and_port(lab: Lab, recorder: Recorder, http_url: str) -> None:
    """A server behind a URL shows as its address and port over TCP; path and query are left out."""
    lab.context.add_service({"name": "web", "url": f"{http_url}?key=hunter2"})
    lab.context.wait_service("web")
    recorder.clear()
    lab.context.call_tool("web_echo", {"text": "hi"})

    attributes = recorder.span().attributes
    port = int(http_url.split(":")[2].partition("/")[0])
    assert attributes["network.transport"] == "tcp"
    assert attributes["network.protocol.name"] == "http"
    assert (attributes["server.address"], attributes["server.port"]) == ("127.0.0.1", port)
    assert "hunter2" not in str(attributes)


def test_names_follow_a_restart(lab: Lab, recorder: Recorder) -> None:
    """After a restart names are looked up again, without a span for it."""
    lab.context.call_tool("lab_echo", {})
    lab.context.find_service(SERVICE).restart_service()
    lab.context.call_tool("lab_echo", {})

    assert [span.name for span in recorder.spans()] == [
        "tools/call echo",
        "restart_service lab",
        "tools/call echo",
    ]


def test_two_stores_with_one_alias_are_told_apart(
    lab: Lab, recorder: Recorder, tmp_path: Path, http_url: str
) -> None:
    """The same name in two stores, for two servers, gives each call the service that it went to."""
    folder = tmp_path / "other"
    folder.mkdir()
    other = Lab(folder, {"name": SERVICE, "url": http_url})
    recorder.clear()
    for store in (lab, other, lab, other):
        store.context.call_tool("lab_echo", {})

    assert [span.attributes["network.transport"] for span in recorder.spans()] == ["pipe", "tcp"] * 2
    other.close()


def test_the_names_that_are_kept_are_bounded(lab: Lab, recorder: Recorder) -> None:
    """Names of tools that do not exist are not kept, however many are called."""
    for number in range(50):
        with pytest.raises(RuntimeError):
            lab.context.call_tool(f"lab_no{number}", {})

    assert {span.attributes["error.type"] for span in recorder.spans()} == {"internal"}
    lab.context.call_tool("lab_echo", {})
    assert recorder.spans()[-1].name == "tools/call echo"


ASYNC_CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "context": lambda store, context: context.call_tool("lab_echo", {"text": "hi"}),
    "context, by keyword": lambda store, context: context.call_tool(
        args={"text": "hi"}, tool_name="lab_echo"
    ),
}


@pytest.mark.parametrize("face", ASYNC_CALLS)
def test_an_async_call_has_its_wire_name_from_the_first_time(
    tmp_path: Path, recorder: Recorder, face: str
) -> None:
    """On async natives the look-up runs beside the call: name, attributes and record are the wire's at the end."""

    async def scenario(store: Any, context: Any) -> list[Any]:
        recorder.clear()
        return [await ASYNC_CALLS[face](store, context) for _ in range(2)]

    first, second = run_async(tmp_path, scenario)

    assert first == second == {"content": [{"type": "text", "text": "hi"}], "is_error": False}
    calls = [span for span in recorder.spans() if span.kind == "CLIENT"]
    assert [span.name for span in calls] == ["tools/call echo"] * 2
    for span in calls:
        assert fixed(span.attributes) == {**ECHO, semconv.TOOL_ALIAS: "lab_echo"}
    (point,) = recorder.points(REQUESTS, gen_ai__tool__name="echo")
    assert point.count == 2


def test_async_faces_are_one_span_each(tmp_path: Path, recorder: Recorder) -> None:
    """Tool, service, resource, prompt, session and list of the async store are one span each, of the right kind."""

    async def scenario(store: Any, context: Any) -> None:
        tool = await context.find_tool("lab_echo")
        instance_id = (await tool.info())["instance_id"]
        service = await context.find_service(service_name=SERVICE)
        recorder.clear()
        await tool.call({"text": "hi"})
        await context.list_tools()
        await context.list_prompts()
        await service.read_resource("lab://a")
        await service.get_prompt("hi", {})
        session = await store.create_session("s1")
        await store.bind_service_to_session(session["session_key"], instance_id)
        await store.call_tool_in_session(session["session_key"], instance_id, "echo", {})
        await service.restart_service()

    run_async(tmp_path, scenario)

    assert [(span.kind, span.name) for span in recorder.spans()][:-1] == [
        ("CLIENT", "tools/call echo"),
        ("INTERNAL", "list_tools"),
        ("CLIENT", "prompts/list"),
        ("CLIENT", "resources/read"),
        ("CLIENT", "prompts/get hi"),
        ("INTERNAL", "create_session"),
        ("INTERNAL", "bind_service_to_session lab"),
        ("CLIENT", "tools/call echo"),
        ("INTERNAL", "restart_service lab"),
    ]


def test_spans_nest_in_threads_that_carry_context(lab: Lab, recorder: Recorder) -> None:
    """A call in a thread that was handed the caller's context is a child of the caller's span; else it is a root."""
    with recorder.tracer.start_as_current_span("caller"):
        context = contextvars.copy_context()
        lab.context.call_tool("lab_echo", {})
        for target in (
            lambda: context.run(lab.context.call_tool, "lab_add", {}),
            lambda: lab.context.call_tool("lab_big", {}),
        ):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()

    spans = recorder.spans()
    caller = named(spans, "caller")
    assert [span.name for span in children(spans, caller)] == ["tools/call echo", "tools/call add"]
    plain = named(spans, "tools/call big")
    # From 3.14 on, threads of a free-threaded build carry the context by themselves.
    assert plain.parent_id == (caller.span_id if getattr(sys.flags, "thread_inherit_context", 0) else "")


def test_spans_nest_in_asyncio_tasks(tmp_path: Path, recorder: Recorder) -> None:
    """Calls in concurrent tasks are children of the span that started the tasks, and not of each other."""

    async def scenario(store: Any, context: Any) -> None:
        with recorder.tracer.start_as_current_span("caller"):
            await asyncio.gather(*(call(context, str(number)) for number in range(3)))

    async def call(context: Any, text: str) -> None:
        with recorder.tracer.start_as_current_span(f"task {text}"):
            await context.call_tool("lab_echo", {"text": text})

    run_async(tmp_path, scenario)

    spans = recorder.spans()
    tasks = children(spans, named(spans, "caller"))
    assert sorted(span.name for span in tasks) == ["task 0", "task 1", "task 2"]
    for task in tasks:
        assert [span.name for span in children(spans, task)] == ["tools/call echo"]


def test_a_future_does_not_become_a_parent(tmp_path: Path, recorder: Recorder) -> None:
    """Two calls that are begun one after the other and awaited together are siblings."""

    async def scenario(store: Any, context: Any) -> None:
        recorder.clear()
        with recorder.tracer.start_as_current_span("caller"):
            await asyncio.gather(
                context.call_tool("lab_sleep", {"seconds": 0.05}), context.call_tool("lab_echo", {})
            )

    run_async(tmp_path, scenario)

    spans = recorder.spans()
    names = [span.name for span in children(spans, named(spans, "caller"))]
    assert names == ["tools/call sleep", "tools/call echo"]
