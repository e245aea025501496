"""What no program should do to a store, done to real ones: the application sees what it would see without the agent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from integration.anystore import SET_UP
from integration.harness import STDIO_SERVER, Finished, Runner, named

from storescope import semconv

pytestmark = pytest.mark.anystore

#: Defines `see(case, act)`, which prints what the application sees of a call, but for what differs from run to run.
SEE = f"""
{SET_UP}
import gc, re

def see(case, act):
    try:
        result = act()
        if not isinstance(result, dict):
            result = {{"content": [{{"text": part.text}} for part in result.content], "is_error": result.is_error}}
        seen = [result["is_error"], *(part["text"] for part in result["content"])]
    except Exception as error:
        seen = [type(error).__name__, str(error), type(error.__context__).__name__]
    changing = r"[0-9a-f]{{8}}-[0-9a-f-]{{27}}|0x[0-9a-f]+"
    print(re.sub(changing, "...", json.dumps([case, *seen])), flush=True)
"""

#: Arguments of every odd kind, each to a tool that exists. What makes 2.x crash the process (a value that contains
#: itself) or 1.5.18 wait for half a minute (half a character) is left to a callable without a store.
ODD_ARGUMENTS = f"""
{SEE}
store = set_up()

class WithoutRepr(dict):
    def __repr__(self):
        raise ValueError("no repr")

class WithoutItems(dict):
    def __iter__(self):
        raise ValueError("no items")
    keys = items = values = __iter__

class WithoutEqual(str):
    def __eq__(self, other):
        raise ValueError("not comparable")
    def __hash__(self):
        raise ValueError("not hashable")

class Odd:
    def __repr__(self):
        raise ValueError("no repr")
    def __getattr__(self, name):
        raise ValueError("no attributes")

itself = {{}}
itself["text"] = [itself]

cases = {{
    "nothing": None,
    "text": "text",
    "a list": ["text"],
    "a number": 7,
    "without repr": WithoutRepr(text="a"),
    "without items": WithoutItems(text="a"),
    "an object": {{"text": Odd()}},
    "without equal": {{"text": WithoutEqual("a")}},
    "a number for a name": {{1: "a"}},
    "data": {{"text": b"a"}},
    "not a number": {{"text": float("nan")}},
}}
if not hasattr(store, "_native"):
    cases["itself"] = itself
for case, arguments in cases.items():
    see(case, lambda: store.call_tool("lab_echo", arguments))
see("no name", lambda: store.call_tool(7, {{}}))
see("odd name", lambda: store.call_tool(WithoutEqual("lab_echo"), {{"text": "b"}}))
see("50 MB", lambda: store.call_tool("lab_length", {{"text": "x" * 50_000_000}}))
"""

#: The server is killed, the service is removed, or the store is forgotten, while a call is under way.
GONE = f"""
{SEE}
import psutil

def set_up_with_log(name):
    store = set_up(name)
    server = [{str(STDIO_SERVER)!r}, "wire.jsonl"]
    store.add_service({{"name": "logged", "command": sys.executable, "args": server}})
    store.wait_service("logged")
    return store

def calls_received():
    with open("wire.jsonl") as log:
        return log.read().count('"tools/call"')

def during(act, seconds):
    received = calls_received()

    def wait_and_act():
        deadline = time.monotonic() + 20
        while calls_received() == received and time.monotonic() < deadline:
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    see(act.__name__, lambda: store.call_tool("logged_sleep", {{"seconds": seconds}}))
    thread.join()

def killed():
    for server in psutil.Process().children(recursive=True):
        server.kill()

def removed():
    service = "logged"
    if hasattr(store, "_native"):
        store.find_service(service).remove_service()
    else:
        store.delete_service(service)

def forgotten():
    global store
    store = None
    gc.collect()

store = set_up_with_log("first.json")
during(killed, 30)
store = set_up_with_log("second.json")
see("after that", lambda: store.call_tool("logged_echo", {{"text": "a"}}))
during(removed, 1)
see("without it", lambda: store.call_tool("logged_echo", {{"text": "a"}}))
store = set_up_with_log("third.json")
during(forgotten, 1)
"""

#: The same of an `AsyncMCPStore`, whose calls are futures.
FORGOTTEN_ASYNC = f"""
import asyncio, gc, sys
from mcpstore import AsyncMCPStore

async def main():
    open("mcp.json", "w").write('{{"mcpServers": {{}}}}')
    store = AsyncMCPStore.setup_with_options("mcp.json")
    context = store.for_store()
    await context.add_service({{"name": "lab", "command": sys.executable, "args": [{str(STDIO_SERVER)!r}]}})
    await context.wait_service(service_name="lab")
    call = context.call_tool("lab_sleep", {{"seconds": 1}})
    await asyncio.sleep(0.2)
    removal = context.remove_service(service_name="lab")
    del store, context
    gc.collect()
    for future in (call, removal):
        try:
            print(await future, flush=True)
        except Exception as error:
            print(repr(error), flush=True)
    await asyncio.sleep(0.05)  # 2.3.0 can crash in a program that ends right after its last await

asyncio.run(main())
"""


def run(folder: Path, program: str, *, launcher: bool = True, **env: str) -> Finished:
    folder.mkdir(exist_ok=True)
    return Runner(folder).run(program, launcher=launcher, env=env).check()


def warnings(finished: Finished) -> list[str]:
    """Return what the agent had to say."""
    return [line for line in finished.stderr.splitlines() if line.startswith("storescope")]


def seen(finished: Finished) -> dict[str, list[Any]]:
    return {case: outcome for case, *outcome in map(json.loads, finished.stdout.splitlines())}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What the application sees of odd arguments without the agent."""
    return seen(run(tmp_path_factory.mktemp("bare"), ODD_ARGUMENTS, launcher=False))


@pytest.mark.parametrize("capture", ["", "arguments,results"])
def test_odd_arguments_change_nothing(tmp_path: Path, bare: dict[str, list[Any]], capture: str) -> None:
    """No dict, 50 MB, itself, without `repr` or items: the same results and errors, and not a word on stderr."""
    finished = run(tmp_path, ODD_ARGUMENTS, STORESCOPE_CAPTURE=capture)

    assert seen(finished) == bare
    assert bare["50 MB"] == [False, "50000000"]
    assert len(warnings(finished)) <= 1  # about the name that cannot be hashed
    calls = [span for span in finished.spans() if span.attributes.get("mcp.method.name") == "tools/call"]
    assert len(bare) - 1 <= len(calls) <= len(bare)
    large = named(calls, "tools/call length").attributes
    assert large[semconv.REQUEST_SIZE] == 50_000_000 + len("text")
    assert large[semconv.CALL_DIGEST_SKIPPED] == "size"
    assert len(large.get(semconv.GEN_AI_TOOL_CALL_ARGUMENTS, "").encode()) == (4096 if capture else 0)


def test_a_tool_may_have_any_name(tmp_path: Path) -> None:
    """A name that is not ASCII is the same in the span, its attributes, the metric and the file."""
    name = "поиск_✓"
    program = (
        f"{SEE}\nstore = set_up()\nsee('any name', lambda: store.call_tool('lab_{name}', {{'text': 'é✓'}}))"
    )
    finished = run(tmp_path, program)

    assert seen(finished) == {"any name": [False, "é✓"]}
    span = named(finished.spans(), f"tools/call {name}")
    assert span.attributes[semconv.GEN_AI_TOOL_NAME] == name
    assert span.attributes[semconv.TOOL_ALIAS] == f"lab_{name}"
    assert span.attributes[semconv.REQUEST_SIZE] == len("text") + len("é✓".encode())
    (point,) = [
        point for point in finished.points() if point.attributes.get(semconv.GEN_AI_TOOL_NAME) == name
    ]
    assert point.count == 1


def test_what_goes_away_during_a_call_goes_away_as_before(tmp_path: Path) -> None:
    """A server killed, a service removed, a store forgotten: the same outcome, and each call has its span."""
    bare = seen(run(tmp_path / "bare", GONE, launcher=False))
    finished = run(tmp_path / "observed", GONE)

    assert seen(finished) == bare
    assert list(bare) == ["killed", "after that", "removed", "without it", "forgotten"]
    assert bare["after that"] == [False, "a"]
    assert warnings(finished) == []
    killed, *others = [span for span in finished.spans() if span.name == "tools/call sleep"]
    assert len(others) == 2
    assert killed.status == "ERROR"
    assert killed.attributes["error.type"] in ("call_disconnected", "connection_closed")
    assert killed.seconds < 25


@pytest.mark.mcpstore2
def test_an_async_store_that_is_forgotten_during_a_call(tmp_path: Path) -> None:
    """The future that is left has the same result, and its span."""
    bare = run(tmp_path / "bare", FORGOTTEN_ASYNC, launcher=False)
    finished = run(tmp_path / "observed", FORGOTTEN_ASYNC)

    assert finished.stdout == bare.stdout
    assert warnings(finished) == []
    assert named(finished.spans(), "tools/call sleep").attributes[semconv.SERVICE_NAME] == "lab"
