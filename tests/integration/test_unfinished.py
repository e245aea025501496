"""Operations in flight: what hangs is seen while it hangs, and at the end of the program."""

from __future__ import annotations

import threading
import time

import pytest
from integration.harness import STDIO_SERVER, Runner, children, named, read_spans
from integration.recording import Recorder
from integration.stores import SET_UP_A_STORE, Lab, Lab1

from storescope import semconv

#: A store of the installed generation; `context.call_tool` is its sync face.
SET_UP_1 = """
import sys
from mcpstore import MCPStore

with open("mcp.json", "w") as config:
    config.write('{"mcpServers": {}}')
store = MCPStore.setup_store(mcpjson_path="mcp.json").for_store()
store.add_service({"name": "lab", "command": sys.executable, "args": [sys.argv[1]]})
store.wait_service("lab")
"""

#: The program ends while a call of a daemon thread hangs.
HANGS = """
import threading, time

threading.Thread(target=store.call_tool, args=("lab_sleep", {"seconds": 30}), daemon=True).start()
time.sleep(%s)
"""

ASYNC_HANGS = """
import asyncio, sys
from mcpstore import AsyncMCPStore

async def main():
    open("mcp.json", "w").write('{"mcpServers": {}}')
    context = AsyncMCPStore.setup_with_options("mcp.json").for_store()
    await context.add_service({"name": "lab", "command": sys.executable, "args": [sys.argv[1]]})
    await context.wait_service(service_name="lab")
    await context.call_tool("lab_echo", {})
    call = context.call_tool("lab_sleep", {"seconds": 30})
    await asyncio.sleep(0.3)

asyncio.run(main())
"""

SERVER = str(STDIO_SERVER)


def check_unfinished(runner: Runner, program: str, **env: str) -> str:
    """Run a program at whose end a call of `sleep` hangs, look at what it left, and return its stderr."""
    finished = runner.run(program, SERVER, env=env, timeout=40)
    span = named(finished.spans(), "tools/call sleep")
    assert span.status == "ERROR"
    assert span.attributes[semconv.ERROR_TYPE] == "storescope.unfinished"
    assert span.attributes[semconv.SERVICE_NAME] == "lab"
    age = span.attributes[semconv.OPERATION_AGE]
    assert 0.2 < age < 30
    assert abs(age - span.seconds) < 0.1
    assert f"when this had run for {age:.3f} s" in span.message
    (point,) = [
        point
        for point in finished.points()
        if point.attributes.get(semconv.ERROR_TYPE) == "storescope.unfinished"
    ]
    assert (point.metric, point.count) == (semconv.CLIENT_OPERATION_DURATION, 1)
    return finished.stderr


@pytest.mark.mcpstore2
def test_what_hangs_at_exit_is_kept(runner: Runner) -> None:
    """A call that has not returned when the program ends is a span with an error and its age, and a record."""
    stderr = check_unfinished(runner, SET_UP_A_STORE + HANGS % 0.3, STORESCOPE_VERBOSE="1")
    assert "1 error" in stderr


@pytest.mark.mcpstore2
def test_what_an_event_loop_leaves_behind_is_kept(runner: Runner) -> None:
    """The same of an async call whose future nobody waits for."""
    check_unfinished(runner, ASYNC_HANGS)


@pytest.mark.mcpstore1
def test_what_hangs_at_exit_is_kept_with_its_phases(runner: Runner) -> None:
    """With 1.5.x the phase that hangs is kept too, below its call."""
    check_unfinished(runner, SET_UP_1 + HANGS % 2)
    spans = read_spans(runner.directory)
    phases = children(spans, named(spans, "tools/call sleep"))
    assert phases[-1].attributes[semconv.PHASE] == "call"
    assert phases[-1].attributes[semconv.ERROR_TYPE] == "storescope.unfinished"


@pytest.mark.mcpstore2
def test_a_call_that_hangs_is_warned_about_once(runner: Runner) -> None:
    """While it still hangs, one warning names tool and service; a call that returns in time gives none."""
    program = SET_UP_A_STORE + 'store.call_tool("lab_echo", {})\n' + HANGS % 1.5
    finished = runner.run(program, SERVER, env={"STORESCOPE_STUCK_AFTER": "0.4"}, timeout=40)
    (line,) = [line for line in finished.stderr.splitlines() if "has not returned" in line]
    assert "tools/call sleep" in line or "tools/call lab_sleep" in line
    assert "lab" in line


@pytest.mark.mcpstore2
def test_zero_never_warns(runner: Runner) -> None:
    """`STORESCOPE_STUCK_AFTER=0` starts no watch."""
    finished = runner.run(
        SET_UP_A_STORE + HANGS % 0.5, SERVER, env={"STORESCOPE_STUCK_AFTER": "0"}, timeout=40
    )
    assert "has not returned" not in finished.stderr


def active(recorder: Recorder) -> dict[str, int]:
    """Return how many operations are under way, by their MCP method or operation."""
    return {
        str(point.attributes.get(semconv.MCP_METHOD_NAME) or point.attributes[semconv.STORE_OPERATION]): (
            point.value
        )
        for point in recorder.numbers(semconv.OPERATIONS_ACTIVE)
    }


def watch_a_call(recorder: Recorder, call: threading.Thread) -> None:
    call.start()
    deadline = time.monotonic() + 10
    while active(recorder).get("tools/call") != 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert active(recorder)["tools/call"] == 1
    call.join()
    assert active(recorder)["tools/call"] == 0


@pytest.mark.mcpstore2
def test_operations_under_way_are_counted(lab: Lab, recorder: Recorder) -> None:
    """`storescope.operations.active` is 1 while a call runs, and 0 afterwards, not missing."""
    watch_a_call(
        recorder, threading.Thread(target=lab.context.call_tool, args=("lab_sleep", {"seconds": 0.5}))
    )


@pytest.mark.mcpstore1
def test_operations_under_way_are_counted_without_their_phases(lab1: Lab1, recorder: Recorder) -> None:
    """One call of 1.5.x is one operation, whatever phase it is in."""
    watch_a_call(
        recorder, threading.Thread(target=lab1.context.call_tool, args=("lab_sleep", {"seconds": 0.5}))
    )
