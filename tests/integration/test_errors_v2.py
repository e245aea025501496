"""mcpstore 2.x: failures are told apart, and the application receives exactly what it would have received."""

from __future__ import annotations

import asyncio
import gc
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wrapt
from integration.recording import Recorder
from integration.stores import SERVICE, Lab, run_async

from storescope import semconv

pytestmark = pytest.mark.mcpstore2

REQUESTS = semconv.CLIENT_OPERATION_DURATION
OPERATIONS = semconv.OPERATION_DURATION

#: What goes wrong: how, with which exception for the application, as which `error.type`, and whether the request
#: got out.
FAILURES: dict[str, tuple[Callable[[Lab], Any], type[BaseException] | None, str, bool]] = {
    "the tool says so": (lambda lab: lab.context.call_tool("lab_fail", {}), None, "tool_error", True),
    "JSON-RPC error": (
        lambda lab: lab.context.call_tool("lab_rpc_error", {}),
        RuntimeError,
        "tool_failed",
        True,
    ),
    "server dies": (
        lambda lab: lab.context.call_tool("lab_die", {}),
        RuntimeError,
        "call_disconnected",
        True,
    ),
    "unknown tool": (lambda lab: lab.context.call_tool("lab_zzz", {}), RuntimeError, "internal", False),
    "unknown tool of a service": (
        lambda lab: lab.store.call_tool(lab.instance_id, "zzz", {}),
        RuntimeError,
        "internal",
        False,
    ),
    "unknown instance": (
        lambda lab: lab.store.call_tool(str(uuid.UUID(int=1)), "echo", {}),
        RuntimeError,
        "service_not_found",
        False,
    ),
    "unknown session": (
        lambda lab: lab.native.call_tool_in_session("s", lab.instance_id, "echo", {}),
        RuntimeError,
        "session_not_found",
        False,
    ),
    "bad id": (lambda lab: lab.store.call_tool("no id", "echo", {}), ValueError, "ValueError", False),
    "bad argument value": (
        lambda lab: lab.context.call_tool("lab_echo", {"text": object()}),
        TypeError,
        "TypeError",
        False,
    ),
    "missing argument": (lambda lab: lab.context._native.call_tool(), TypeError, "TypeError", False),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_has_its_own_error_type(lab: Lab, recorder: Recorder, failure: str) -> None:
    """The same `error.type` stands on span and record; a call that reached no server is not among the requests."""
    act, exception, error_type, sent = FAILURES[failure]
    if exception is None:
        assert act(lab)["is_error"] is True
    else:
        with pytest.raises(exception) as raised:
            act(lab)
        assert raised.type is exception

    span = recorder.span()
    assert (span.kind, span.status) == ("CLIENT", "ERROR")
    assert span.attributes["error.type"] == error_type
    (point,) = recorder.points(REQUESTS if sent else OPERATIONS, error__type=error_type)
    assert point.count == 1
    assert recorder.count(REQUESTS) == int(sent)


def test_a_success_has_no_error_type(lab: Lab, recorder: Recorder) -> None:
    """`error.type` is absent on success, on span and record."""
    lab.context.call_tool("lab_echo", {})

    assert recorder.span().status == "UNSET"
    assert "error.type" not in recorder.span().attributes
    assert all("error.type" not in point.attributes for point in recorder.points())


def test_a_json_rpc_error_keeps_its_code(lab: Lab, recorder: Recorder) -> None:
    """The code of a JSON-RPC error is an attribute of the span, as a string."""
    with pytest.raises(RuntimeError):
        lab.context.call_tool("lab_rpc_error", {})

    assert recorder.span().attributes["rpc.response.status_code"] == "-32602"


def test_an_operation_of_the_store_fails_alike(lab: Lab, recorder: Recorder) -> None:
    """Service operations have error types too."""
    with pytest.raises(RuntimeError, match="service_not_found"):
        lab.context.wait_service("nobody", timeout=1)

    span = recorder.span()
    assert (span.name, span.kind, span.status) == ("wait_service nobody", "INTERNAL", "ERROR")
    assert span.attributes["error.type"] == "service_not_found"
    assert recorder.count(OPERATIONS, error__type="service_not_found") == 1


def test_a_message_is_the_spans_description(lab: Lab, recorder: Recorder) -> None:
    """The status tells what the error says, without its secrets; there is no event with a stack trace."""
    lab.context.call_tool("lab_fail", {})

    assert recorder.span().message == "no such thing password=[redacted]"
    assert not recorder.span().events


def test_errors_of_async_calls_are_told_apart(tmp_path: Path, recorder: Recorder) -> None:
    """Async natives fail with the same error types, and a cancelled call is `cancelled`."""

    async def scenario(store: Any, context: Any) -> None:
        recorder.clear()
        assert (await context.call_tool("lab_fail", {}))["is_error"]
        for tool in ("lab_rpc_error", "zzz", "lab_die"):
            with pytest.raises(RuntimeError):
                await context.call_tool(tool, {})
        with pytest.raises(TypeError):
            context.call_tool("lab_echo", {"text": object()})
        cancelled = context.call_tool("lab_sleep", {"seconds": 5})
        await asyncio.sleep(0.05)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(context.call_tool("lab_sleep", {"seconds": 5}), 0.05)

    run_async(tmp_path, scenario)

    calls = [span for span in recorder.spans() if span.kind == "CLIENT"]
    assert [(span.name, span.attributes["error.type"]) for span in calls] == [
        ("tools/call fail", "tool_error"),
        ("tools/call rpc_error", "tool_failed"),
        ("tools/call zzz", "internal"),
        ("tools/call die", "call_disconnected"),
        ("tools/call lab_echo", "TypeError"),
        ("tools/call sleep", "cancelled"),
        ("tools/call sleep", "cancelled"),
    ]
    assert {span.status for span in calls} == {"ERROR"}
    assert recorder.count(REQUESTS, error__type="cancelled") == 2


class Spy:
    """Stands between the agent and a native method, and keeps what the native gave."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: str, method: str) -> None:
        import mcpstore._rust as native

        self.given: list[Any] = []
        cls = getattr(native, owner)
        monkeypatch.setattr(cls, method, wrapt.FunctionWrapper(getattr(cls, method), self._keep))

    def _keep(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        try:
            result = wrapped(*args, **kwargs)
        except BaseException as error:
            self.given.append(error)
            raise
        self.given.append(result)
        return result


def test_results_and_exceptions_are_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application gets the native's very own result, and its very own exception."""
    spy = Spy(monkeypatch, "ScopeContext", "call_tool")
    with Recorder() as recorder:
        lab = Lab(tmp_path)
        native = lab.context._native
        result = native.call_tool("lab_echo", {"text": "hi"})
        with pytest.raises(RuntimeError) as raised:
            native.call_tool("zzz", {})
        lab.close()

    assert result is spy.given[0]
    assert raised.value is spy.given[1]
    assert raised.value.__cause__ is raised.value.__context__ is None
    assert len([span for span in recorder.spans() if span.kind == "CLIENT"]) == 2


def test_futures_are_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application gets the native's very own future, whose work has begun."""
    spy = Spy(monkeypatch, "AsyncScopeContext", "call_tool")

    async def scenario(store: Any, context: Any) -> None:
        future = context.call_tool("lab_echo", {"text": "hi"})
        assert future is spy.given[0]
        assert type(future) is asyncio.get_running_loop().create_future().__class__
        await future

    with Recorder():
        run_async(tmp_path, scenario)


def test_a_call_starts_before_it_is_awaited(tmp_path: Path, recorder: Recorder) -> None:
    """An async call that nobody has awaited yet is on its way to the server."""

    async def scenario(store: Any, context: Any) -> Any:
        future = context.call_tool("lab_echo", {"text": "hi"})
        await asyncio.sleep(0.2)
        done = future.done()
        await future
        return done

    assert run_async(tmp_path, scenario) is True


@pytest.mark.parametrize("observed", [False, True])
def test_an_exception_that_nobody_retrieves_is_reported(tmp_path: Path, observed: bool) -> None:
    """Asyncio's report of a forgotten exception comes with the agent as without it."""
    reports: list[str] = []

    async def scenario(store: Any, context: Any) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, report: reports.append(report["message"]))
        context.call_tool("zzz", {})
        await asyncio.sleep(0.2)
        gc.collect()
        await asyncio.sleep(0)

    recorder = Recorder()
    if observed:
        recorder.instrument()
    try:
        run_async(tmp_path, scenario)
    finally:
        recorder.uninstrument()

    assert reports == ["Future exception was never retrieved"]
    assert len([span for span in recorder.spans() if span.kind == "CLIENT"]) == int(observed)


def test_a_wrapped_method_looks_like_the_native(lab: Lab, recorder: Recorder) -> None:
    """Name, documentation and kind of a patched method are the native's."""
    import inspect

    import mcpstore._rust as native

    patched = native.AsyncScopeContext.call_tool
    recorder.uninstrument()
    original = native.AsyncScopeContext.call_tool
    assert patched.__name__ == original.__name__
    assert patched.__doc__ == original.__doc__
    assert inspect.signature(patched) == inspect.signature(original)
    assert inspect.iscoroutinefunction(patched) == inspect.iscoroutinefunction(original)


def test_a_call_inside_suppressed_instrumentation_is_left_alone(lab: Lab, recorder: Recorder) -> None:
    """Nothing is recorded where OpenTelemetry's own switch says so."""
    from opentelemetry.instrumentation.utils import suppress_instrumentation

    with suppress_instrumentation():
        lab.context.call_tool("lab_echo", {})
    assert recorder.spans() == []
    lab.context.call_tool("lab_echo", {})
    assert recorder.span().name == "tools/call echo"


def test_a_failing_look_up_costs_the_name_and_nothing_else(
    lab: Lab, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the name cannot be looked up, the call runs under the name as called, and succeeds."""
    import mcpstore._rust as native

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("internal: not today")

    monkeypatch.setattr(native.ScopeContext, "find_tool", broken)
    result = lab.context.call_tool("lab_echo", {"text": "hi"})

    assert result["content"][0]["text"] == "hi"
    assert recorder.span().name == "tools/call lab_echo"
    assert SERVICE not in recorder.span().attributes.values()
