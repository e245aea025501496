"""No payload leaves the process; sizes do; times stand only where they are true."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from integration.harness import HTTP_SERVER, Runner
from integration.recording import Recorder
from integration.stores import SET_UP_A_STORE, Lab, run_async

from storescope import semconv

pytestmark = pytest.mark.mcpstore2

#: Uses secrets in every place where an application has them: arguments, results, environment, URL, header.
PROGRAM = f"""
{SET_UP_A_STORE}
import subprocess

SECRET = "payl0ad"
store.find_service("lab").patch_service({{"env": {{"KEY": SECRET}}}})
with subprocess.Popen([sys.executable, {str(HTTP_SERVER)!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as web:
    url = f"http://127.0.0.1:{{int(web.stdout.readline())}}/mcp?sig={{SECRET}}"
    store.add_service({{"name": "web", "url": url, "headers": {{"x-sig": SECRET}}}})
    store.wait_service("web")
    for tool in ("lab_echo", "web_echo"):
        result = store.call_tool(tool, {{"text": SECRET}})
        assert result["content"][0]["text"] == SECRET, result
    assert store.call_tool("lab_fail", {{"text": SECRET}})["is_error"]
    for tool in ("lab_rpc_error", "lab_die", "web_die"):
        try:
            store.call_tool(tool, {{}})
        except RuntimeError as error:
            print(tool, error)
    store.find_service("lab").get_prompt("hi", {{"name": SECRET}})
    store.find_service("lab").read_resource("lab://a")
"""


def test_no_payload_is_written(runner: Runner) -> None:
    """Secrets in arguments, results, environment, headers, URL queries and error texts occur in no file."""
    finished = runner.run(PROGRAM).check()

    names = [span.name for span in finished.spans()]
    assert {"tools/call echo", "tools/call fail", "prompts/get hi", "resources/read"} <= set(names)
    written = finished.written()
    for secret in ("payl0ad", "hunter2", "s3cr3t-t0ken", "the text of a", "hi there"):
        assert secret not in written
    assert "no such thing password=[redacted]" in written


def test_error_text_can_be_switched_off(runner: Runner) -> None:
    """`STORESCOPE_ERROR_TEXT=off` leaves `error.type` alone."""
    finished = runner.run(PROGRAM, env={"STORESCOPE_ERROR_TEXT": "off"}).check()

    failed = [span for span in finished.spans() if span.status == "ERROR"]
    assert {"tool_error", "tool_failed", "call_disconnected"} <= {
        span.attributes["error.type"] for span in failed
    }
    assert {span.message for span in failed} == {""}
    assert "no such thing" not in finished.written()


def test_error_text_is_cut(lab: Lab, recorder: Recorder) -> None:
    """Of a long message 256 characters are kept."""
    with pytest.raises(RuntimeError):
        lab.context.call_tool("lab_" + "z" * 2000, {})

    assert len(recorder.span().message) == 256


def test_sizes_count_text_as_utf8(lab: Lab, recorder: Recorder) -> None:
    """Request and response size are the UTF-8 lengths of what was sent and what came back."""
    lab.context.call_tool("lab_echo", {"text": "héé"})
    lab.context.call_tool("lab_big", {"n": 100_000})

    small, big = recorder.spans()
    assert small.attributes[semconv.REQUEST_SIZE] == len("text") + 5
    assert small.attributes[semconv.RESPONSE_SIZE] == 5
    assert big.attributes[semconv.RESPONSE_SIZE] == 100_000


def test_metrics_carry_no_payload_no_uri_and_no_size(lab: Lab, recorder: Recorder) -> None:
    """Span attributes and metric attributes are kept apart."""
    lab.context.call_tool("lab_echo", {"text": "hi"})
    lab.context.find_service("lab").read_resource("lab://a")

    allowed = {
        semconv.MCP_METHOD_NAME,
        semconv.GEN_AI_OPERATION_NAME,
        semconv.GEN_AI_TOOL_NAME,
        semconv.SERVICE_NAME,
        semconv.NETWORK_TRANSPORT,
        semconv.MCP_PROTOCOL_VERSION,
    }
    for point in recorder.points(semconv.CLIENT_OPERATION_DURATION):
        assert point.attributes.keys() <= allowed


class NoisyNeighbour:
    """A thread that burns CPU while it is entered."""

    def __enter__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._burn)
        self._thread.start()

    def _burn(self) -> None:
        while not self._stop.is_set():
            sum(range(1000))

    def __exit__(self, *raised: object) -> None:
        self._stop.set()
        self._thread.join()


def test_thread_cpu_time_is_the_callers_own(lab: Lab, recorder: Recorder) -> None:
    """A sync call that waits half a second beside a busy thread is charged next to nothing."""
    with NoisyNeighbour():
        lab.context.call_tool("lab_sleep", {"seconds": 0.5})

    span = recorder.span()
    assert span.seconds > 0.5
    assert 0 <= span.attributes[semconv.THREAD_CPU_TIME] < 0.1


def test_async_operations_have_no_thread_cpu_time(tmp_path: Path, recorder: Recorder) -> None:
    """Beside a busy task an async call would be charged the other's time: it says nothing."""

    async def scenario(store: Any, context: Any) -> None:
        future = context.call_tool("lab_sleep", {"seconds": 0.1})
        busy_until = time.perf_counter() + 0.1
        while time.perf_counter() < busy_until:
            sum(range(1000))
        await future
        await context.list_tools()

    run_async(tmp_path, scenario)

    assert len(recorder.spans()) > 4
    assert not [span.name for span in recorder.spans() if semconv.THREAD_CPU_TIME in span.attributes]
