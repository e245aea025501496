"""`OptimizedStore`: cached, coalesced, bounded calls, whose results are the caller's own."""

from __future__ import annotations

import asyncio
import collections
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import pytest

import storescope
from storescope.core import AsyncOptimizedStore, IntelligentCache, OptimizedStore, ToolCall
from storescope.core.errors import DeadlineExceeded

Tool = Callable[..., Any]


class Desk:
    """A store of two tools that counts its calls."""

    def __init__(self, answer: Tool = lambda **arguments: {"echo": arguments}) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._answer = answer

    def call_tool(self, tool_name: str, arguments: dict[str, Any]) -> Any:
        self.calls.append((tool_name, arguments))
        return self._answer(**arguments)

    def list_tools(self) -> list[str]:
        return ["read", "write"]


class AsyncDesk(Desk):
    """The same with coroutines."""

    async def call_tool(self, tool_name: str, arguments: dict[str, Any]) -> Any:
        self.calls.append((tool_name, arguments))
        answer = self._answer(**arguments)
        return await answer if asyncio.iscoroutine(answer) else answer

    async def list_tools(self) -> list[str]:  # type: ignore[override]
        return ["read", "write"]


class Threads:
    """Runs a scenario's calls in threads."""

    def __init__(self, answer: Tool | None = None, cached: Any = ("read",), **options: Any) -> None:
        self.desk = Desk() if answer is None else Desk(answer)
        self.store = OptimizedStore(storescope.adapt(self.desk), cached, **options)

    def call(self, tool: str = "read", **arguments: Any) -> Any:
        return self.store.call_tool(tool, arguments)

    def batch(self, calls: list[Any]) -> Any:
        return self.store.batch_call(calls)

    def invalidate(self, tool: str, **arguments: Any) -> bool:
        return self.store.invalidate(tool, arguments)

    def together(self, count: int, **arguments: Any) -> list[Any]:
        with ThreadPoolExecutor(count) as threads:
            futures = [threads.submit(self.call, **arguments) for _ in range(count)]
            return [future.exception() or future.result() for future in futures]


class Tasks(Threads):
    """Runs a scenario's calls in tasks of one event loop."""

    def __init__(self, answer: Tool | None = None, cached: Any = ("read",), **options: Any) -> None:
        self.desk = AsyncDesk() if answer is None else AsyncDesk(answer)
        self.store = AsyncOptimizedStore(storescope.adapt(self.desk), cached, **options)  # type: ignore[assignment]
        self._runner = asyncio.new_event_loop()

    def run(self, awaitable: Any) -> Any:
        return self._runner.run_until_complete(awaitable)

    def call(self, tool: str = "read", **arguments: Any) -> Any:
        return self.run(self.store.call_tool(tool, arguments))

    def batch(self, calls: list[Any]) -> Any:
        return self.run(self.store.batch_call(calls))

    def invalidate(self, tool: str, **arguments: Any) -> bool:
        return self.run(self.store.invalidate(tool, arguments))  # type: ignore[no-any-return]

    def together(self, count: int, **arguments: Any) -> list[Any]:
        async def all_at_once() -> list[Any]:
            calls = (self.store.call_tool("read", arguments) for _ in range(count))
            return await asyncio.gather(*calls, return_exceptions=True)

        return self.run(all_at_once())  # type: ignore[no-any-return]


faces = pytest.mark.parametrize("face", [Threads, Tasks])


@pytest.fixture(autouse=True)
def _close_loops(monkeypatch: pytest.MonkeyPatch) -> Any:
    loops = []
    make = asyncio.new_event_loop
    monkeypatch.setattr(asyncio, "new_event_loop", lambda: loops.append(make()) or loops[-1])
    yield
    for loop in loops:
        loop.close()


@faces
def test_named_tools_are_answered_from_the_cache(face: Any) -> None:
    """The same call, however its arguments are ordered, reaches the store once; other tools always do."""
    desk = face()
    assert desk.call(a=1, b=2) == desk.call(b=2, a=1) == {"echo": {"a": 1, "b": 2}}
    assert desk.call(a=1, b=3) != desk.call(a=1, b=2)
    for _ in range(2):
        desk.call("write", a=1)
    assert [tool for tool, _ in desk.desk.calls] == ["read", "read", "write", "write"]
    stats = desk.store.stats()
    assert (stats.calls, stats.hits, stats.misses, stats.bypassed, stats.errors) == (6, 2, 2, 2, 0)
    assert desk.store.get_stats() == asdict(stats)
    assert "2 hits in 6 calls" in repr(desk.store)


@faces
def test_results_are_the_callers_own(face: Any) -> None:
    """Whoever changes what it got, the first one too, changes it for nobody else."""
    desk = face(lambda **_: {"content": [{"text": "as it was"}]})
    for _ in range(3):
        result = desk.call(a=1)
        assert result == {"content": [{"text": "as it was"}]}
        result["content"][0]["text"] = "changed"
    assert len(desk.desk.calls) == 1


@faces
@pytest.mark.parametrize(
    "result",
    [
        {"text": "plain", "data": b"\0", "n": 2**70, "x": math.inf, "none": None, "list": [1, 1.0, True]},
        (1, [2]),
        collections.OrderedDict(b=1, a=2),
        {1: "a name that is no text"},
        collections.deque([1, 2]),
    ],
)
def test_a_hit_has_the_type_of_the_live_result(face: Any, result: Any) -> None:
    """Equal, of the same type, and another object, whether or not it can be written as bytes."""
    desk = face(lambda: result)
    assert desk.call() is result
    hit = desk.call()
    assert hit == result
    assert type(hit) is type(result)
    assert hit is not result
    assert len(desk.desk.calls) == 1


@faces
def test_errors_are_not_kept(face: Any) -> None:
    """What raises, and what is marked as an error, is asked for again; both are counted."""
    answers = [ValueError("first"), {"content": [{"text": "second"}], "is_error": True}, {"content": []}]

    def answer() -> Any:
        given = answers.pop(0)
        if isinstance(given, Exception):
            raise given
        return given

    desk = face(answer)
    with pytest.raises(ValueError, match="first"):
        desk.call()
    assert desk.call()["is_error"]
    assert desk.call() == desk.call() == {"content": []}
    assert desk.store.stats().errors == 2


@faces
def test_equal_calls_at_once_are_one(face: Any) -> None:
    """Those who come while a call is in flight get results of their own from it."""

    def answer() -> Any:
        if face is Threads:
            return time.sleep(0.05) or {"list": []}
        return asyncio.sleep(0.01, {"list": []})

    desk = face(answer)
    results = desk.together(8)
    assert results == [{"list": []}] * 8
    assert len({id(result["list"]) for result in results}) == 8
    assert len(desk.desk.calls) == 1
    stats = desk.store.stats()
    assert (stats.calls, stats.misses) == (8, 1)
    assert stats.coalesced + stats.hits == 7


@faces
def test_calls_of_other_tools_are_never_joined(face: Any) -> None:
    """Two equal writes are two."""
    desk = face(lambda: asyncio.sleep(0.01) if face is Tasks else time.sleep(0.01), cached=())
    desk.together(3)
    assert len(desk.desk.calls) == 3


@faces
def test_a_deadline_ends_the_wait(face: Any) -> None:
    """The error says how long was waited; it is counted, and nothing is kept."""
    ended = threading.Event()

    def answer() -> Any:
        return ended.wait(10) if face is Threads else asyncio.sleep(10)

    desk = face(answer, timeout=0.02)
    with pytest.raises(DeadlineExceeded, match=r"within 0\.0"):
        desk.call()
    ended.set()
    assert (desk.store.stats().deadlines, desk.store.stats().errors) == (1, 1)
    assert len(desk.store.cache) == 0


@faces
def test_no_more_than_so_many_reach_the_store(face: Any) -> None:
    """The limit holds for calls, and for those of a batch; hits do not count."""
    lock = threading.Lock()
    running = most = 0

    def begin() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)

    def end() -> None:
        nonlocal running
        with lock:
            running -= 1

    def in_thread(n: int) -> int:
        begin()
        time.sleep(0.005)
        end()
        return n

    async def in_task(n: int) -> int:
        begin()
        await asyncio.sleep(0.002)
        end()
        return n

    desk = face(in_thread if face is Threads else in_task, max_concurrent=2)
    results = desk.batch([{"tool_name": "read", "arguments": {"n": n}} for n in range(6)])
    assert [result.value for result in results] == list(range(6))
    assert most == 2


@faces
def test_a_batch_hides_no_failure_and_no_success(face: Any) -> None:
    """One result per call, in order, with value or error; `str` shows it."""

    def answer(n: int) -> Any:
        if n == 1:
            raise ValueError("no such n")
        if n == 2:
            return {"content": [{"type": "text", "text": "told so"}], "is_error": True}
        return f"number {n}"

    desk = face(answer)
    results = desk.batch(
        [ToolCall("read", {"n": 0}), *({"tool_name": "read", "arguments": {"n": n}} for n in (1, 2, 3))]
    )
    assert [str(result) for result in results] == ["number 0", "no such n", "told so", "number 3"]
    assert [result.ok for result in results] == [True, False, False, True]
    assert desk.batch([]) == []


@faces
def test_a_kept_result_can_be_dropped(face: Any) -> None:
    """`invalidate` has the next call made anew, and says whether there was anything to drop."""
    desk = face()
    desk.call(a=1)
    assert desk.invalidate("read", a=1)
    assert not desk.invalidate("read", a=1)
    desk.call(a=1)
    assert len(desk.desk.calls) == 2


@faces
def test_each_tool_has_its_time(face: Any) -> None:
    """Seconds by name, as the cache's clock counts them; None is the cache's own."""
    now = [0.0]
    cache = IntelligentCache(default_ttl=100, clock=lambda: now[0])
    desk = face(cached={"read": 10, "list": None}, cache=cache)
    for tool in ("read", "list"):
        desk.call(tool)
    now[0] = 11
    for tool in ("read", "list"):
        desk.call(tool)
    assert [tool for tool, _ in desk.desk.calls] == ["read", "list", "read"]


@faces
def test_stale_results_answer_while_a_new_one_is_fetched(face: Any) -> None:
    """After its time a result is still given at once, and the next one is fetched meanwhile, once."""
    now = [0.0]
    versions = iter(range(10))
    fetched = threading.Event()

    def answer() -> Any:
        version = next(versions)
        if version:
            fetched.set()
        return version

    cache = IntelligentCache(clock=lambda: now[0])
    desk = face(answer, cached={"read": 10}, cache=cache, stale=5)
    assert desk.call() == 0
    now[0] = 11
    assert desk.call() == 0
    if face is Tasks:
        desk.run(asyncio.sleep(0.01))
    assert fetched.wait(10)
    deadline = time.monotonic() + 10
    while desk.call() != 1 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert desk.call() == 1
    assert desk.store.stats().stale >= 1
    assert len(desk.desk.calls) == 2


def test_stores_share_a_cache_only_where_they_may() -> None:
    """Two stores whose services nobody can tell apart share nothing, unless they are given one namespace."""
    cache = IntelligentCache()
    apart = [OptimizedStore(storescope.adapt(Desk()), ["read"], cache=cache) for _ in range(2)]
    together = [
        OptimizedStore(storescope.adapt(Desk()), ["read"], cache=cache, namespace="desk") for _ in range(2)
    ]
    for store in (*apart, *together):
        store.call_tool("read", {})
    assert [store.stats().hits for store in (*apart, *together)] == [0, 0, 0, 1]


def test_arguments_without_a_key_are_not_cached() -> None:
    """A call whose arguments cannot be told from others goes to the store."""
    desk = Threads(lambda **_: 1)
    for _ in range(2):
        assert desk.call(thing=object()) == 1
    assert desk.store.stats().bypassed == 2


def test_an_optimized_store_is_a_store() -> None:
    """It can be optimized again, and `adapt` returns it as it is."""
    desk = Threads()
    outer = OptimizedStore(desk.store, timeout=10)
    assert outer.call_tool("read", {}) == outer.call_tool("read", {})
    assert outer.list_tools() == ["read", "write"]
    assert len(desk.desk.calls) == 1
    assert storescope.adapt(outer) is outer


@faces
def test_failing_calls_are_counted(face: Any) -> None:
    """Each call is one of the kinds, however it ended."""

    def fail() -> Any:
        raise OSError("away")

    desk = face(fail)
    for _ in range(3):
        with pytest.raises(OSError, match="away"):
            desk.call()
    stats = desk.store.stats()
    assert (stats.calls, stats.misses, stats.errors) == (3, 3, 3)


@faces
def test_caching_fails_no_call_that_succeeds_without(face: Any) -> None:
    """Arguments without a key and results that nobody can copy are passed through."""
    lock = threading.Lock()
    desk = face(lambda **_: lock)
    circular: list[Any] = []
    circular.append(circular)
    for arguments in ({"a": circular}, {"a": 1}, {"a": 1}):
        assert desk.call(**arguments) is lock
    assert len(desk.desk.calls) == 3


def test_the_deadline_is_for_the_whole_call() -> None:
    """Finding out whose a tool is counts too."""

    class Slow(Desk):
        def owner(self, _tool_name: str) -> Any:
            time.sleep(5)

        def batch_call(self, calls: Any) -> Any: ...

    store = OptimizedStore(Slow(), ["read"], timeout=0.05)
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        store.call_tool("read", {})
    assert time.monotonic() - begun < 4


def test_a_store_says_itself_what_its_results_are() -> None:
    """An object with `result_error` keeps its word when it is adapted."""

    class Marking(Desk):
        def result_error(self, result: Any) -> Exception | None:
            return ValueError("marked") if result["echo"] else None

    (marked,) = storescope.adapt(Marking()).batch_call([{"tool_name": "read", "arguments": {"a": 1}}])
    assert str(marked) == "marked"
    assert marked.value == {"echo": {"a": 1}}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OptimizedStore(3), "store must be a Store, not 3: storescope.adapt makes one"),  # type: ignore[arg-type]
        (
            lambda: OptimizedStore(storescope.adapt(AsyncDesk())),
            "store must be a Store, and .* has the other face",
        ),
        (lambda: AsyncOptimizedStore(storescope.adapt(Desk())), "store must be an AsyncStore, and"),
        (lambda: Threads(cached="read"), r"cached_tools must name several tools, as \['read'\]"),
        (lambda: Threads(cached=[3]), "cached_tools must name tools, not 3"),
        (lambda: Threads(cached={"read": 0}), r"cached_tools\['read'\] must be above 0, not 0"),
        (lambda: Threads(timeout=-1), "timeout must be above 0, not -1"),
        (lambda: Threads(stale=math.nan), "stale must be 0 or more, not nan"),
        (lambda: Threads(max_concurrent=0), "max_concurrent must be 1 or more, not 0"),
        (
            lambda: Threads().batch([{"tool": "read"}]),
            "a call must have tool_name and arguments, not {'tool': 'read'}",
        ),
        (lambda: Threads().batch(["read"]), "a call must be a ToolCall or a dict, not 'read'"),
        (lambda: storescope.adapt(object()), r"has no call_tool\(tool_name, arguments\)"),
        (lambda: Threads().batch([{"tool_name": 5}]), "tool_name must be .*, not 5"),
        (
            lambda: Threads().batch([{"tool_name": "read", "arguments": 0}]),
            "arguments must be a mapping, not 0",
        ),
        (lambda: Threads(cached=5), "cached_tools must name tools, not 5"),
        (lambda: Threads(cache={}), "cache must be an IntelligentCache, not {}"),
        (lambda: Threads(namespace=5), "namespace must be .*, not 5"),
        (lambda: Threads(name=5), "name must be .*, not 5"),
        (lambda: Threads().call(5), "tool_name must be .*, not 5"),
        (lambda: Threads().store.call_tool("read", 7), "arguments must be a mapping, not 7"),  # type: ignore[arg-type]
        (lambda: storescope.adapt(storescope.adapt(Desk()), is_async=True), "has no async face"),
    ],
)
def test_bad_input_is_named(make: Callable[[], object], message: str) -> None:
    """The error names argument and value, and the fix."""
    with pytest.raises((TypeError, ValueError), match=message):
        make()
