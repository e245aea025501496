"""mcpstore 1.5.x: no payload leaves the process, and times stand only where they are true."""

from __future__ import annotations

import asyncio

import pytest
from integration.harness import HTTP_SERVER, STDIO_SERVER, Runner
from integration.recording import Recorder
from integration.stores import Lab1

from storescope import semconv

pytestmark = pytest.mark.mcpstore1

#: Uses secrets in every place where an application has them: arguments, results, environment, URL, header.
PROGRAM = f"""
import subprocess, sys
from mcpstore import MCPStore

SECRET = "payl0ad"
with open("mcp.json", "w") as config:
    config.write('{{"mcpServers": {{}}}}')
store = MCPStore.setup_store(mcpjson_path="mcp.json").for_store()
command = {{"command": sys.executable, "args": [{str(STDIO_SERVER)!r}], "env": {{"KEY": SECRET}}}}
store.add_service({{"name": "lab", **command}})
store.wait_service("lab")
with subprocess.Popen([sys.executable, {str(HTTP_SERVER)!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as web:
    url = f"http://127.0.0.1:{{int(web.stdout.readline())}}/mcp?sig={{SECRET}}"
    store.add_service({{"name": "web", "url": url, "headers": {{"x-sig": SECRET}}}})
    store.wait_service("web")
    for tool in ("lab_echo", "web_echo"):
        result = store.call_tool(tool, {{"text": SECRET}})
        assert result.content[0].text == SECRET, result
    assert store.call_tool("lab_fail", {{"text": SECRET}}).is_error
    for tool in ("lab_rpc_error", "web_die", "lab_die"):
        assert store.call_tool(tool, {{}}).is_error
store.get_prompt("hi", {{"name": SECRET}}, "lab")
store.read_resource("lab://a", "lab")
"""


def test_no_payload_is_written(runner: Runner) -> None:
    """Secrets in arguments, results, environment, headers, URL queries and error texts occur in no file."""
    finished = runner.run(PROGRAM).check()

    names = {span.name for span in finished.spans()}
    assert {"tools/call echo", "tools/call fail", "prompts/get hi", "resources/read"} <= names
    written = finished.written()
    for secret in ("payl0ad", "hunter2", "s3cr3t-t0ken", "the text of a", "hi there"):
        assert secret not in written
    assert "no such thing password=[redacted]" in written


def test_thread_cpu_time_is_left_off_where_the_work_is_a_coroutine(lab1: Lab1, recorder: Recorder) -> None:
    """The store works on an event loop, whose thread does other things meanwhile, whichever face was called."""
    lab1.proxy.call_tool("lab_echo", {"text": "hi"})
    asyncio.run(lab1.context.call_tool_async("lab_echo", {"text": "hi"}))

    assert len([span for span in recorder.spans() if span.kind == "CLIENT"]) == 2
    assert not [span.name for span in recorder.spans() if semconv.THREAD_CPU_TIME in span.attributes]
