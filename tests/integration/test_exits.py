"""How programs with a store end: by signals, with threads and tasks alive, and by the store's own crash."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from integration.anystore import SET_UP
from integration.harness import STDIO_SERVER, Runner, Span, children, named, read_points, read_spans

pytestmark = pytest.mark.anystore

LAUNCHER = Path(sys.executable).with_name("opentelemetry-instrument")

#: A program's own end to the end of its process, in seconds, on a busy machine; see `test_export.py`.
PROMPT = 4.0
#: How mcpstore 2.3.0 may end a program.
CRASHES = (-signal.SIGABRT, -signal.SIGSEGV)


def tools(spans: list[Span]) -> list[str]:
    """Return which tools were called, by the names that they have on the wire."""
    calls = [span.name for span in spans if span.name.startswith("tools/call ")]
    return sorted(name.removeprefix("tools/call ").removeprefix("lab_") for name in calls)


def errors(spans: list[Span], tool: str) -> set[Any]:
    return {span.attributes.get("error.type") for span in spans if span.name.endswith(tool)}


#: Finishes a call, waits as long as is promised, says so, and is in the middle of the next one when it is ended.
INTERRUPTED = f"""{SET_UP}
def theirs(number, frame):
    raise AssertionError

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGUSR1, theirs)
store = set_up()
handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
store.call_tool("lab_echo", {{}})
time.sleep(1)
print(handlers == [signal.default_int_handler, signal.SIG_DFL, theirs], flush=True)
store.call_tool("lab_sleep", {{"seconds": 0.7}})
print("still running", flush=True)
time.sleep(9)
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_finished_is_in_the_file_when_a_signal_comes_during_a_call(
    ending: signal.Signals, runner: Runner
) -> None:
    """A second after a call, in the middle of the next: the program ends as it would, handlers are the application's.

    What was under way is there too after Ctrl-C, which a call of mcpstore 2.x holds up until it returns.
    """
    program = runner.folder / "app.py"
    program.write_text(INTERRUPTED, "utf-8")
    with subprocess.Popen(
        [str(LAUNCHER), sys.executable, str(program)],
        cwd=runner.folder,
        env=runner.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        time.sleep(0.2)
        process.send_signal(ending)
        stdout, _ = process.communicate(timeout=30)

    assert process.returncode == -ending
    assert stdout == ""
    spans = read_spans(runner.directory)
    assert tools(spans) == (["echo", "sleep"] if ending == signal.SIGINT else ["echo"])
    assert errors(spans, "echo") == {None}


def ending(runner: Runner, source: str, returncode: int = 0) -> list[Span]:
    """Run a program that prints `end` and the time when it has done all that it does itself; return its spans."""
    finished = runner.run(f"{SET_UP}{source}", timeout=30, attempts=2)
    ended = time.monotonic()

    assert finished.returncode in (returncode, *CRASHES), finished.stderr
    (at,) = re.findall(r"^end (\S+)$", finished.stdout, re.MULTILINE)
    assert ended - float(at) < PROMPT
    assert "storescope: " not in finished.stderr
    return finished.spans()


END = 'print("end", time.monotonic(), flush=True)'


def test_a_daemon_thread_in_the_middle_of_a_call_does_not_hold_the_program_up(runner: Runner) -> None:
    """What finished before is there; the exit status is the program's own."""
    source = f"""
store = set_up()
store.call_tool("lab_echo", {{}})
threading.Thread(target=store.call_tool, args=("lab_sleep", {{"seconds": 9}}), daemon=True).start()
time.sleep(0.2)
{END}
sys.exit(3)
"""
    spans = ending(runner, source, returncode=3)
    assert "echo" in tools(spans)
    assert errors(spans, "echo") == {None}


IN_THREADS = f"""
from concurrent.futures import ThreadPoolExecutor
from opentelemetry import trace

store = set_up()
with trace.get_tracer("application").start_as_current_span("both"), ThreadPoolExecutor(1) as executor:
    executor.submit(store.call_tool, "lab_echo", {{}}).result()
    thread = threading.Thread(target=store.call_tool, args=("lab_add", {{}}))
    thread.start()
    thread.join()
{END}
"""


def test_threads_carry_context_where_opentelemetry_instruments_them(runner: Runner) -> None:
    """Beside `opentelemetry-instrumentation-threading` a thread's calls are children of the span it was started in."""
    pytest.importorskip(
        "opentelemetry.instrumentation.threading", reason="its instrumentation is not installed"
    )
    spans = ending(runner, IN_THREADS)
    assert tools(children(spans, named(spans, "both"))) == ["add", "echo"]


def test_threads_that_outlive_the_main_one_are_observed_to_their_end(runner: Runner) -> None:
    """Those of the application, and those of an executor that nobody shuts down, with what it has queued."""
    source = f"""
from concurrent.futures import ThreadPoolExecutor
store = set_up()

def work():
    time.sleep(0.3)
    store.call_tool("lab_add", {{}})
    {END}

threading.Thread(target=work).start()
executor = ThreadPoolExecutor(1)
for _ in range(3):
    executor.submit(store.call_tool, "lab_echo", {{}})
"""
    assert tools(ending(runner, source)) == ["add", "echo", "echo", "echo"]


#: Two ways in which a loop ends with a task in it: `asyncio.run` cancels it, and `loop.close` forgets it.
TASKS = """
import asyncio

async def call(tool, arguments):
    if NATIVE is None:
        return await store._context.call_tool_async(tool, arguments)
    return await context.call_tool(tool, arguments)

async def main():
    global context
    if NATIVE is not None:
        context = NATIVE.setup_with_options("async.json").for_store()
        await context.add_service({"name": "lab", "command": sys.executable, "args": [SERVER]})
        await context.wait_service(service_name="lab")
    await call("lab_echo", {})
    tasks.append(asyncio.ensure_future(call("lab_sleep", {"seconds": 1.5})))
    await asyncio.sleep(0.1)

tasks = []
try:
    from mcpstore import AsyncMCPStore as NATIVE
    with open("async.json", "w") as config:
        config.write('{"mcpServers": {}}')
except ImportError:
    NATIVE = None
    store = set_up()
"""


@pytest.mark.parametrize(
    "run",
    ["asyncio.run(main())", "loop = asyncio.new_event_loop(); loop.run_until_complete(main()); loop.close()"],
)
def test_a_task_that_is_left_in_a_loop_harms_nothing(run: str, runner: Runner) -> None:
    """It is cancelled or forgotten in the middle of a call; what finished is there."""
    source = f"SERVER = {str(STDIO_SERVER)!r}\n{TASKS}\n{run}\n{END}"
    spans = ending(runner, source)
    assert "echo" in tools(spans)
    assert errors(spans, "echo") == {None}
    assert errors(spans, "sleep") <= {"cancelled", "storescope.unfinished", "timeout"}


#: Ends right after its last await, with calls still running: their answers come while the interpreter shuts down.
CRASHING = f"""
import asyncio, sys
from mcpstore import AsyncMCPStore

with open("mcp.json", "w") as config:
    config.write('{{"mcpServers": {{}}}}')

async def main():
    context = AsyncMCPStore.setup_with_options("mcp.json").for_store()
    await context.add_service({{"name": "lab", "command": sys.executable, "args": [{str(STDIO_SERVER)!r}]}})
    await context.wait_service(service_name="lab")
    pending = [context.call_tool("lab_sleep", {{"seconds": 0.01 * count}}) for count in range(40)]
    await asyncio.gather(*(context.call_tool("lab_echo", {{}}) for _ in range(10)))

asyncio.run(main())
"""


@pytest.mark.mcpstore2
def test_the_stores_crash_at_exit_loses_nothing_that_finished(tmp_path: Path) -> None:
    """2.3.0 ends nearly every such program by a signal, after the agent has written all of it."""

    def run(number: int) -> tuple[int, int, int]:
        folder = tmp_path / str(number)
        folder.mkdir()
        finished = Runner(folder).run(CRASHING, timeout=30, attempts=2)
        counted = sum(
            point.count
            for point in read_points(finished.directory)
            if point.metric == "mcp.client.operation.duration" and "error.type" not in point.attributes
        )
        return finished.returncode, tools(finished.spans()).count("echo"), counted

    with ThreadPoolExecutor(2) as executor:
        runs = list(executor.map(run, range(6)))
    assert {returncode for returncode, _, _ in runs} <= {0, *CRASHES}
    assert [echoes for _, echoes, _ in runs] == [10] * 6
    assert all(counted >= 10 for _, _, counted in runs)
