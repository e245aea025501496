"""Batches on a store in memory: order, results, deadlines, retries, cancellation, by threads and by tasks."""

from __future__ import annotations

import asyncio
import copy
import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storescope.core import AsyncBatchOptimizer, BatchOptimizer
from storescope.core.errors import Cancelled, DeadlineExceeded, NotRun, ToolFailed, WrongEventLoop

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


class Files:
    """A store of numbers by name, which keeps what it was asked and knows how many asked at once."""

    def __init__(self, **content: int) -> None:
        self.content = dict(content)
        self.log: list[tuple[str, Any]] = []
        self.failures = 0
        self.inside = self.most = 0
        self.lock = threading.Lock()
        self.release = threading.Event()

    def call_tool(self, tool_name: str, arguments: Any) -> Any:
        with self.lock:
            self.log.append((tool_name, arguments.get("path")))
            self.inside += 1
            self.most = max(self.most, self.inside)
        try:
            return getattr(self, tool_name)(**arguments)
        finally:
            with self.lock:
                self.inside -= 1

    def read(self, path: str) -> dict[str, Any]:
        return {"value": self.content.get(path)}

    def add(self, path: str, value: int) -> None:
        with self.lock:
            self.content[path] = self.content.get(path, 0) + value

    def remove(self, path: str) -> None:
        self.content.pop(path, None)

    def create(self, path: str) -> None:
        with self.lock:
            self.content.setdefault(path, 1000)

    def nap(self, seconds: float = 0.002, **_: Any) -> str:
        time.sleep(seconds)
        return "slept"

    def hang(self, **_: Any) -> str:
        self.release.wait(30)
        return "released"

    def fail(self, error: BaseException | None = None) -> None:
        raise error or ConnectionError("refused")

    def flaky(self, path: str, times: int) -> str:
        with self.lock:
            self.failures += 1
            if self.failures <= times:
                raise ConnectionError(f"attempt {self.failures}")
        return "at last"

    def opaque(self, path: str) -> Any:
        return threading.Lock()

    def whose(self) -> str:
        return tenant.get()


class AsyncFiles(Files):
    """The same for tasks: a nap lets others go on, and a hang ends only by cancellation."""

    async def call_tool(self, tool_name: str, arguments: Any) -> Any:
        if tool_name in ("nap", "hang"):
            self.log.append((tool_name, arguments.get("path")))
            self.inside += 1
            self.most = max(self.most, self.inside)
            try:
                await asyncio.sleep(arguments.get("seconds", 0.002) if tool_name == "nap" else 30)
            finally:
                self.inside -= 1
            return "slept"
        await asyncio.sleep(0)
        return super().call_tool(tool_name, arguments)


class Threads:
    """How a test has a batch executed by threads."""

    store = Files
    batch = BatchOptimizer

    @staticmethod
    def run(batch: Any) -> Any:
        return batch.optimize_batch_execution()

    @staticmethod
    def sleep(times: list[float]) -> Callable[[float], Any]:
        return times.append


class Tasks:
    """How a test has a batch executed by tasks."""

    store = AsyncFiles
    batch = AsyncBatchOptimizer

    @staticmethod
    def run(batch: Any) -> Any:
        return asyncio.run(batch.optimize_batch_execution())

    @staticmethod
    def sleep(times: list[float]) -> Callable[[float], Any]:
        async def note(seconds: float) -> None:
            times.append(seconds)

        return note


both = pytest.mark.parametrize("face", [Threads, Tasks])


def fill(batch: Any, *operations: tuple[str, str, dict[str, Any]], **options: Any) -> list[Any]:
    return [batch.add_operation(*operation, **options) for operation in operations]


@both
def test_every_read_precedes_every_write(face: Any) -> None:
    """However they were added, with as many workers as there are; a write finds nobody reading."""
    store = face.store()
    batch = face.batch(store, max_concurrent=16)
    for index in range(20):
        fill(batch, ("write", "nap", {"path": f"w{index}"}), ("read", "nap", {"path": f"r{index}"}))
    results = face.run(batch)
    assert [result.value for result in results] == ["slept"] * 40
    assert "".join(path[0] for _, path in store.log) == "r" * 20 + "w" * 20


@both
def test_results_come_in_the_order_of_addition(face: Any) -> None:
    """Whatever the order of execution; each tells value, error, duration and attempts."""
    store = face.store(a=1, b=2)
    batch = face.batch(store)
    handles = fill(
        batch,
        ("rename", "read", {"path": "b"}),
        ("write", "fail", {}),
        ("read", "nap", {"seconds": 0.01}),
        ("read", "read", {"path": "a"}),
    )
    results = face.run(batch)
    assert [result.value for result in results] == [{"value": 2}, None, "slept", {"value": 1}]
    assert isinstance(results[1].error, ConnectionError)
    assert [result.attempts for result in results] == [1, 1, 1, 1]
    assert results[2].duration >= 0.01
    assert [handle.result() for handle in handles] == results
    assert str(results[3]) == "{'value': 1}"


actions = {
    "read": "read",
    "write": "add",
    "delete": "remove",
    "create": "create",
    "count": "add",
}


@pytest.mark.parametrize("order", ["type", "added"])
@both
@settings(max_examples=40, deadline=None)
@given(
    added=st.lists(
        st.tuples(st.sampled_from(sorted(actions)), st.sampled_from("ab"), st.integers(1, 9)), max_size=30
    ),
    workers=st.one_of(st.integers(1, 6), st.just("adaptive")),
    batch_size=st.integers(1, 5),
)
def test_a_batch_does_what_one_call_after_the_other_does(
    face: Any, order: str, added: list[tuple[str, str, int]], workers: Any, batch_size: int
) -> None:
    """In the order of types or of addition: the same results, the same content, each change made once."""
    store, model = face.store(a=1), Files(a=1)
    batch = face.batch(store, order=order, max_concurrent=workers, batch_size=batch_size)
    turns = {kind: turn for turn, kind in enumerate(["read", "write", "delete", "create", "count"])}
    expected: list[Any] = [None] * len(added)
    in_turn = sorted(enumerate(added), key=lambda each: turns[each[1][0]] if order == "type" else 0)
    for index, (kind, path, value) in in_turn:
        arguments = {"path": path, "value": value} if actions[kind] == "add" else {"path": path}
        expected[index] = model.call_tool(actions[kind], arguments)
    for kind, path, value in added:
        arguments = {"path": path, "value": value} if actions[kind] == "add" else {"path": path}
        batch.add_operation(kind, actions[kind], arguments)
    assert [result.unwrap() for result in face.run(batch)] == expected
    assert store.content == model.content
    changes = [entry for entry in model.log if entry[0] != "read"]
    assert sorted(entry for entry in store.log if entry[0] != "read") == sorted(changes)
    assert batch.stats().succeeded == len(added)


@both
def test_identical_reads_are_executed_once(face: Any) -> None:
    """Each gets a result of its own: what one does with it, no other sees; the sharers have no attempts."""
    store = face.store(a=1)
    batch = face.batch(store)
    fill(batch, *[("read", "read", {"path": "a"})] * 3, ("read", "read", {"path": "b"}))
    results = face.run(batch)
    assert sorted(store.log) == [("read", "a"), ("read", "b")]
    assert [result.attempts for result in results] == [1, 0, 0, 1]
    results[0].value["value"] = "mine"
    assert [result.value for result in results[1:]] == [{"value": 1}, {"value": 1}, {"value": None}]
    assert batch.stats().shared == 2


@both
def test_what_cannot_be_copied_is_not_shared(face: Any) -> None:
    """The operation is executed itself instead."""
    store = face.store()
    batch = face.batch(store)
    fill(batch, *[("read", "opaque", {"path": "a"})] * 3)
    results = face.run(batch)
    assert len({id(result.value) for result in results}) == len(store.log) == 3
    assert [result.attempts for result in results] == [1, 1, 1]


@both
def test_an_error_is_shared_like_a_value(face: Any) -> None:
    """The read was made once, and failed for all who asked."""
    store = face.store()
    batch = face.batch(store)
    fill(batch, *[("read", "fail", {})] * 3)
    results = face.run(batch)
    assert [str(result.error) for result in results] == ["refused"] * 3
    assert len(store.log) == 1


class Marking:
    """A store that marks results as errors and copies them in its own way."""

    def result_error(self, result: Any) -> Exception | None:
        return ToolFailed("no such file") if result == {"value": None} else None

    def copy_result(self, result: Any) -> Any:
        return {**copy.deepcopy(result), "copied": True}


class MarkingFiles(Marking, Files):
    pass


class AsyncMarkingFiles(Marking, AsyncFiles):
    pass


@pytest.mark.parametrize(("face", "kind"), [(Threads, MarkingFiles), (Tasks, AsyncMarkingFiles)])
def test_a_store_says_what_its_results_mean(face: Any, kind: Any) -> None:
    """A result that is marked as an error has value and error; copies are the store's."""
    batch = face.batch(kind(a=1))
    fill(batch, *[("read", "read", {"path": path}) for path in "aabb"])
    results = face.run(batch)
    assert [result.value for result in results[:2]] == [{"value": 1}, {"value": 1, "copied": True}]
    assert [str(result.error) for result in results[2:]] == ["no such file"] * 2
    assert results[2].value == {"value": None}
    assert (batch.stats().succeeded, batch.stats().failed) == (2, 2)


@both
def test_no_more_than_max_concurrent_are_under_way(face: Any) -> None:
    """And all of them are, where there is enough to do."""
    store = face.store()
    batch = face.batch(store, max_concurrent=4)
    fill(batch, *[("write", "nap", {"path": index, "seconds": 0.005}) for index in range(24)])
    face.run(batch)
    assert store.most == 4


@both
def test_an_adaptive_batch_keeps_what_it_learned(face: Any) -> None:
    """From run to run; the limiter can be looked at."""
    batch = face.batch(face.store(), max_concurrent="adaptive")
    for _ in range(2):
        fill(batch, *[("write", "nap", {"seconds": 0.001})] * 30)
        assert all(result.ok for result in face.run(batch))
    assert batch.limiter.stats().acquired == 60
    assert batch.limiter.stats().in_flight == 0
    batch.max_concurrent = 3
    assert (batch.limiter, batch.max_concurrent) == (None, 3)


@both
def test_a_late_operation_fails_and_the_others_do_not(face: Any) -> None:
    """Its worker goes on to the next one: a call that hangs holds no place."""
    store = face.store(a=1)
    batch = face.batch(store, max_concurrent=1, operation_timeout=30)
    batch.add_operation("read", "hang", {}, timeout=0.02)
    batch.add_operation("read", "read", {"path": "a"})
    late, good = face.run(batch)
    store.release.set()
    assert isinstance(late.error, DeadlineExceeded)
    assert (late.attempts, late.value) == (1, None)
    assert late.duration >= 0.02
    assert good.value == {"value": 1}


@both
def test_what_has_not_begun_by_the_batchs_deadline_does_not_begin(face: Any) -> None:
    """What is under way then is given up."""
    store = face.store()
    batch = face.batch(store, max_concurrent=2, batch_size=1, timeout=0.05)
    fill(batch, *[("read", "hang", {"path": index}) for index in range(5)], ("write", "hang", {"path": "w"}))
    results = face.run(batch)
    store.release.set()
    assert all(isinstance(result.error, DeadlineExceeded) for result in results)
    assert sorted(result.attempts for result in results) == [0, 0, 0, 0, 1, 1]
    assert "the batch's 0.05 s had passed before attempt 1 at hang" in str(results[-1].error)
    assert len(store.log) == 2
    assert batch.stats().failed == 6


@both
def test_an_adaptive_batch_obeys_its_deadline(face: Any) -> None:
    """Waiting for a slot ends with it, and does not count as load."""
    store = face.store()
    batch = face.batch(store, max_concurrent="adaptive", timeout=0.05)
    fill(batch, *[("write", "hang", {"path": index}) for index in range(12)])
    results = face.run(batch)
    store.release.set()
    assert all(isinstance(result.error, DeadlineExceeded) for result in results)
    assert sorted(result.attempts for result in results) == [0] * 7 + [1] * 5
    assert batch.limiter.stats().decreases == 1


@both
def test_idempotent_operations_are_tried_again(face: Any) -> None:
    """After a pause that is random below a bound that doubles; the stats say how often."""
    times: list[float] = []
    batch = face.batch(
        face.store(), retries=5, backoff=1.0, max_backoff=3.0, sleep=face.sleep(times), rng=random.Random(7)
    )
    batch.add_operation("write", "flaky", {"path": "a", "times": 4}, idempotent=True)
    (result,) = face.run(batch)
    assert (result.value, result.attempts) == ("at last", 5)
    rng = random.Random(7)
    assert times == [rng.uniform(0, bound) for bound in (1.0, 2.0, 3.0, 3.0)]
    assert batch.stats().retries == 4


@both
@pytest.mark.parametrize(
    ("kind", "tool", "arguments", "options", "attempts"),
    [
        ("read", "flaky", {"path": "a", "times": 9}, {}, 3),
        ("read", "flaky", {"path": "a", "times": 9}, {"idempotent": False}, 1),
        ("write", "flaky", {"path": "a", "times": 9}, {}, 1),
        ("read", "fail", {"error": ValueError("bad argument")}, {}, 1),
        ("read", "fail", {"error": SystemExit(3)}, {}, 1),
        ("read", "fail", {"error": ToolFailed("for now")}, {}, 3),
    ],
)
def test_what_is_tried_again(
    face: Any, kind: str, tool: str, arguments: Any, options: Any, attempts: int
) -> None:
    """Reads, unless told otherwise, and never what fails because of its arguments; the last error remains."""
    batch = face.batch(face.store(), retries=2, backoff=0)
    batch.add_operation(kind, tool, arguments, **options)
    (result,) = face.run(batch)
    assert result.attempts == attempts
    assert result.error is not None


@both
def test_nothing_is_tried_again_without_time(face: Any) -> None:
    """The deadline of an operation is for all its attempts and the pauses between them."""
    times: list[float] = []
    batch = face.batch(face.store(), retries=50, backoff=60, max_backoff=60, sleep=face.sleep(times))
    batch.add_operation("read", "fail", {}, timeout=0.001)
    (result,) = face.run(batch)
    assert isinstance(result.error, (ConnectionError, DeadlineExceeded))
    assert times == []


@both
def test_a_cancelled_operation_is_not_executed(face: Any) -> None:
    """Its result says so, in its place; a sharer of it is executed all the same."""
    store = face.store(a=1)
    batch = face.batch(store)
    first, second, third = fill(
        batch, ("read", "read", {"path": "a"}), ("read", "read", {"path": "a"}), ("write", "fail", {})
    )
    assert first.cancel()
    assert not first.cancel()
    assert third.cancel()
    results = face.run(batch)
    assert isinstance(results[0].error, Cancelled)
    assert (results[0].attempts, results[1].value, results[1].attempts) == (0, {"value": 1}, 1)
    assert store.log == [("read", "a")]
    assert not second.cancel()
    stats = batch.stats()
    assert (stats.succeeded, stats.cancelled, stats.running) == (1, 2, 0)


@both
def test_a_run_can_be_cancelled(face: Any) -> None:
    """From anywhere, here from the progress callback: what has not begun does not begin."""
    store = face.store()
    cancelled: list[int] = []

    def progress(done: int, total: int) -> None:
        if not cancelled:
            cancelled.append(batch.cancel())

    batch = face.batch(store, max_concurrent=1, progress=progress)
    fill(batch, *[("read", "read", {"path": str(index)}) for index in range(10)], ("write", "fail", {}))
    results = face.run(batch)
    assert cancelled == [10]
    assert [result.ok for result in results] == [True] + [False] * 10
    assert all(isinstance(result.error, Cancelled) for result in results[1:])
    assert len(store.log) == 1
    assert batch.cancel() == 0


@both
def test_what_is_added_during_a_run_is_of_the_next_one(face: Any) -> None:
    """Nothing is lost, nothing runs twice."""
    store = face.store()

    def progress(done: int, total: int) -> None:
        if batch.stats().runs == 1:
            batch.add_operation("write", "add", {"path": "late", "value": 1})

    batch = face.batch(store, progress=progress)
    fill(batch, *[("write", "add", {"path": "early", "value": 1})] * 3)
    assert len(face.run(batch)) == 3
    assert "late" not in store.content
    assert (batch.stats().queued, len(batch.operation_queue)) == (3, 3)
    assert len(face.run(batch)) == 3
    assert store.content == {"early": 3, "late": 3}
    assert face.run(batch) == []


@both
def test_progress_is_reported_after_each_operation(face: Any) -> None:
    """In steps of one, of the number that is run; the shared and the cancelled count too."""
    steps: list[tuple[int, int]] = []
    batch = face.batch(face.store(), progress=lambda done, total: steps.append((done, total)))
    handles = fill(batch, *[("read", "read", {"path": "a"})] * 3, ("write", "fail", {}), ("other", "nap", {}))
    handles[1].cancel()
    face.run(batch)
    assert steps == [(done, 5) for done in range(1, 6)]


@both
def test_a_failing_progress_callback_costs_no_result(face: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It is warned about once in a run, and not called again."""
    calls: list[int] = []

    def progress(done: int, total: int) -> None:
        calls.append(done)
        raise ZeroDivisionError

    batch = face.batch(face.store(), progress=progress)
    fill(batch, *[("write", "add", {"path": "a", "value": 1})] * 10)
    with caplog.at_level(logging.WARNING):
        assert all(result.ok for result in face.run(batch))
    assert calls == [1]
    assert [record.message for record in caplog.records] == [
        "the progress callback of a batch failed; it is not called again"
    ]


@both
def test_context_variables_reach_the_calls(face: Any) -> None:
    """Those of whoever runs the batch."""
    tenant.set("alice")
    batch = face.batch(face.store(), operation_timeout=30)
    fill(batch, *[("write", "whose", {})] * 10)
    assert {result.value for result in face.run(batch)} == {"alice"}


def test_a_run_within_its_own_run_is_refused() -> None:
    """It would wait for itself; the operation that tries gets the error, and nothing hangs."""

    class Nested(Files):
        def nest(self) -> Any:
            return batch.optimize_batch_execution()

    batch = BatchOptimizer(Nested())
    batch.add_operation("write", "nest", {})
    (result,) = batch.optimize_batch_execution()
    assert "from within its own run" in str(result.error)
    other = BatchOptimizer(Nested())
    other.add_operation("write", "nest", {})  # another batch within this one is fine
    assert other.optimize_batch_execution()[0].value == []


def test_a_task_within_a_run_that_runs_it_is_refused() -> None:
    """The same for tasks, and for operations with a deadline."""

    class Nested:
        async def call_tool(self, tool_name: str, arguments: Any) -> Any:
            return await batch.optimize_batch_execution()

    batch = AsyncBatchOptimizer(Nested())
    batch.add_operation("write", "nest", {}, timeout=30)
    (result,) = asyncio.run(batch.optimize_batch_execution())
    assert "from within its own run" in str(result.error)


def test_a_second_thread_runs_what_was_added_since() -> None:
    """It waits for the run that is on, and returns with its own results; nothing runs twice."""
    store = Files()
    batch = BatchOptimizer(store)
    first = batch.add_operation("write", "hang", {})
    results: dict[str, Any] = {}
    threads = {
        name: threading.Thread(
            target=lambda name=name: results.update({name: batch.optimize_batch_execution()})
        )
        for name in ("first", "second")
    }
    threads["first"].start()
    while not store.log:
        time.sleep(0.001)
    batch.add_operation("write", "nap", {})
    threads["second"].start()
    time.sleep(0.02)
    assert (first.done(), results) == (False, {})
    with pytest.raises(NotRun):
        first.result()
    store.release.set()
    for thread in threads.values():
        thread.join()
    assert [result.value for result in results["first"]] == ["released"]
    assert [result.value for result in results["second"]] == ["slept"]
    assert batch.stats().runs == 2


def test_operations_may_be_added_from_many_threads_while_it_runs() -> None:
    """Every one is executed once, whichever run gets it."""
    store = Files()
    batch = BatchOptimizer(store)

    def add() -> None:
        for _ in range(200):
            batch.add_operation("write", "add", {"path": "a", "value": 1})

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    results = []
    while any(thread.is_alive() for thread in threads):
        results += batch.optimize_batch_execution()
    results += batch.optimize_batch_execution()
    assert len(results) == store.content["a"] == 800


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals go to no thread here")
def test_ctrl_c_stops_the_rest_and_loses_nothing() -> None:
    """It is raised at once; handles tell what was done, what is under way and what was cancelled."""
    store = Files()
    main = threading.main_thread().ident
    assert main is not None

    class Interrupting(Files):
        def interrupt(self, **_: Any) -> str:
            time.sleep(
                0.05
            )  # the main thread waits: a signal between two waits would be seen after the second
            signal.pthread_kill(main, signal.SIGINT)
            return self.hang()

    store = Interrupting(a=1)
    batch = BatchOptimizer(store, max_concurrent=1, batch_size=1)
    done, under_way, *rest = fill(
        batch, ("read", "read", {"path": "a"}), ("write", "interrupt", {}), *[("write", "nap", {})] * 5
    )
    with pytest.raises(KeyboardInterrupt):
        batch.optimize_batch_execution()
    assert done.result().value == {"value": 1}
    assert not under_way.done()
    assert all(isinstance(handle.result().error, Cancelled) for handle in rest)
    store.release.set()
    for _ in range(3000):
        if under_way.done():
            break
        time.sleep(0.01)
    assert under_way.result().value == "released"
    batch.add_operation("read", "read", {"path": "a"})
    assert batch.optimize_batch_execution()[0].value == {"value": 1}


def test_cancelling_the_awaiting_task_cancels_the_calls() -> None:
    """Those under way end, the rest does not begin, every handle tells, and the batch can be used again."""

    async def main() -> None:
        store = AsyncFiles(a=1)
        batch = AsyncBatchOptimizer(store, max_concurrent=2)
        handles = fill(batch, ("read", "read", {"path": "a"}), *[("write", "hang", {})] * 6)
        running = asyncio.ensure_future(batch.optimize_batch_execution())
        await asyncio.sleep(0.05)
        assert store.inside == 2
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert store.inside == 0
        assert handles[0].result().value == {"value": 1}
        assert all(isinstance(handle.result().error, Cancelled) for handle in handles[1:])
        assert sorted(handle.result().attempts for handle in handles[1:]) == [0, 0, 0, 0, 1, 1]
        batch.add_operation("read", "read", {"path": "a"})
        assert (await batch.optimize_batch_execution())[0].value == {"value": 1}
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_a_call_that_is_cancelled_by_itself_fails_alone() -> None:
    """Its result is Cancelled, which harms nobody who raises it; the run goes on."""

    class Odd:
        async def call_tool(self, tool_name: str, arguments: Any) -> Any:
            raise asyncio.CancelledError

    async def main() -> None:
        batch = AsyncBatchOptimizer(Odd(), max_concurrent=1)
        fill(batch, *[("write", "odd", {})] * 3)
        results = await batch.optimize_batch_execution()
        assert [type(result.error) for result in results] == [Cancelled] * 3

    asyncio.run(main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_can_run() -> None:
    """Also where the parent is in the middle of a run: threads are made for each."""
    store = Files(a=1)
    batch = BatchOptimizer(store)
    batch.add_operation("write", "hang", {})
    running = threading.Thread(target=batch.optimize_batch_execution)
    running.start()
    while not store.log:
        time.sleep(0.001)
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(20)
            batch.add_operation("read", "read", {"path": "a"})
            good = batch.optimize_batch_execution()[0].value == {"value": 1}
            os._exit(0 if good and batch.stats().running == 0 else 1)
        finally:
            os._exit(2)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    store.release.set()
    running.join()
    assert code == 0


def test_no_thread_is_left_after_a_run() -> None:
    """Neither of the workers nor of deadlines that were kept."""
    before = threading.active_count()
    batch = BatchOptimizer(Files(), max_concurrent="adaptive", operation_timeout=30)
    fill(batch, *[("write", "nap", {"seconds": 0})] * 70)
    batch.optimize_batch_execution()
    for _ in range(1000):
        if threading.active_count() == before:
            break
        time.sleep(0.01)  # a thread is counted until its very end
    assert threading.active_count() == before


def test_without_any_thread_nothing_is_lost() -> None:
    """Where the system gives none, that is raised, and the handles tell that nothing has begun."""
    store = Files()
    batch = BatchOptimizer(store)
    (handle,) = fill(batch, ("write", "nap", {}))
    before = threading.stack_size(2**47)
    try:
        with pytest.raises(RuntimeError, match="thread"):
            batch.optimize_batch_execution()
    finally:
        threading.stack_size(before)
    assert isinstance(handle.result().error, Cancelled)
    assert store.log == []


@pytest.mark.parametrize("options", [{"retry_on": lambda error: 1 / 0}, {"sleep": lambda seconds: 1 / 0}])
@both
def test_a_failing_callback_of_the_caller_hangs_nobody(face: Any, options: Any) -> None:
    """It is raised, and what has not begun is cancelled."""
    batch = face.batch(face.store(), max_concurrent=1, retries=1, backoff=1, **options)
    handles = fill(batch, ("read", "fail", {}), ("write", "nap", {}))
    with pytest.raises(ZeroDivisionError):
        face.run(batch)
    stats = batch.stats()
    assert (stats.running, stats.failed, stats.cancelled) == (0, 1, 1)
    assert isinstance(handles[0].result().error, ZeroDivisionError)
    assert isinstance(handles[1].result().error, Cancelled)


def test_arguments_are_those_of_the_moment_of_addition() -> None:
    """A dict that is used again for the next operation does not change this one."""
    store = Files(a=1, b=2)
    batch = BatchOptimizer(store)
    arguments = {"path": "a"}
    batch.add_operation("read", "read", arguments)
    arguments["path"] = "b"
    batch.add_operation("read", "read", arguments)
    assert [result.value["value"] for result in batch.optimize_batch_execution()] == [1, 2]


@both
def test_its_state_can_be_seen(face: Any) -> None:
    """By repr, as a dict and as a dataclass; options can be set, and count from the next run on."""
    batch = face.batch(face.store(), name="nightly")
    batch.add_operation("read", "read", {"path": "a"})
    assert repr(batch) == f"<{face.batch.__name__} 'nightly' 1 queued, 0 running>"
    assert batch.get_stats()["queued"] == 1
    assert (batch.batch_size, batch.max_concurrent) == (20, 5)
    batch.batch_size, batch.max_concurrent = 7, 2
    face.run(batch)
    assert batch.stats().runs == 1
    assert batch.stats().run_time > 0


@both
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be 1 or more, not 0"),
        ({"batch_size": True}, "batch_size must be an integer, not True"),
        ({"max_concurrent": -1}, "max_concurrent must be 1 or more, not -1"),
        ({"max_concurrent": "many"}, "max_concurrent must be an integer or 'adaptive', not 'many'"),
        ({"order": "random"}, "order must be one of 'type', 'added', not 'random'"),
        ({"type_order": "read"}, "type_order must be a sequence of texts, not 'read'"),
        ({"type_order": (1,)}, r"type_order must be a sequence of texts, not \(1,\)"),
        ({"timeout": 0}, "timeout must be above 0, not 0"),
        ({"operation_timeout": float("nan")}, "operation_timeout must be above 0, not nan"),
        ({"retries": -1}, "retries must be 0 or more, not -1"),
        ({"backoff": "1"}, "backoff must be a number, not '1'"),
        ({"backoff": float("inf"), "max_backoff": float("inf")}, "backoff must be finite, not inf"),
        ({"max_backoff": float("inf")}, "max_backoff must be finite, not inf"),
        ({"type_order": None}, "type_order must be a sequence of texts, not None"),
        ({"type_order": {"read"}}, r"type_order must be a sequence of texts, not \{'read'\}"),
        ({"clock": 5}, "clock must be callable, not 5"),
        ({"sleep": 5}, "sleep must be callable, not 5"),
        ({"rng": 5}, r"rng must be a random\.Random, not 5"),
        ({"name": 5}, "name must be a text, not 5"),
        ({"progress": 3}, "progress must be callable, not 3"),
        ({"retry_on": ()}, r"retry_on must be callable, not \(\)"),
    ],
)
def test_bad_options_are_refused(face: Any, options: dict[str, Any], message: str) -> None:
    """At once, when made and when set; the error names the argument and its value."""
    with pytest.raises((TypeError, ValueError), match=f"^{message}$"):
        face.batch(face.store(), **options)
    batch = face.batch(face.store())
    for name in set(options) & {"batch_size", "max_concurrent"}:
        with pytest.raises((TypeError, ValueError), match=f"^{message}$"):
            setattr(batch, name, options[name])
    assert (batch.batch_size, batch.max_concurrent) == (20, 5)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((None, "tool", {}), {}, "operation_type must be a text, not None"),
        (("read", 5, {}), {}, "tool_name must be a text, not 5"),
        (("read", "tool", [1]), {}, r"arguments must be a mapping, not \[1\]"),
        (("read", "tool", {}), {"timeout": -1}, "timeout must be above 0, not -1"),
        (("read", "tool", {}), {"idempotent": 1}, "idempotent must be True, False or None, not 1"),
    ],
)
def test_bad_operations_are_refused(arguments: Any, options: Any, message: str) -> None:
    """When they are added, not in the middle of a run."""
    batch = BatchOptimizer(Files())
    with pytest.raises((TypeError, ValueError), match=f"^{message}$"):
        batch.add_operation(*arguments, **options)
    assert batch.operation_queue == ()


def test_a_store_must_have_tools_to_call() -> None:
    """In the way in which the batch calls them."""
    with pytest.raises(TypeError, match=r"store\.call_tool must be callable, not None"):
        BatchOptimizer(object())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="use AsyncBatchOptimizer"):
        BatchOptimizer(AsyncFiles())
    with pytest.raises(TypeError, match="use BatchOptimizer"):
        AsyncBatchOptimizer(Files())


def test_a_result_that_cannot_be_awaited_is_told() -> None:
    """Where only the call shows it: the operation fails, with an error that says what is wrong, and is not repeated."""

    class Blocking:
        def __call__(self, tool_name: str, arguments: Any) -> str:
            return "text"

    class Odd:
        call_tool = Blocking()

    batch = AsyncBatchOptimizer(Odd(), retries=3)
    batch.add_operation("read", "tool", {})
    (result,) = asyncio.run(batch.optimize_batch_execution())
    assert result.attempts == 1
    with pytest.raises(TypeError, match=r"returned a str that cannot be awaited, and the call was made"):
        result.unwrap()


class Unreadable(dict):  # type: ignore[type-arg]
    """Arguments that nobody can look into."""

    def items(self) -> Any:
        raise ZeroDivisionError

    __iter__ = keys = values = items


class Unhashable(str):
    """A type that a plan cannot sort by."""

    __slots__ = ()

    def __hash__(self) -> int:
        raise ZeroDivisionError


@both
def test_reads_whose_arguments_cannot_be_looked_into_are_not_shared(face: Any) -> None:
    """They fail or succeed each for itself, and the run goes on."""
    batch = face.batch(face.store(a=1))
    fill(
        batch,
        *[("read", "read", {"path": "a", "extra": Unreadable(x=(1,))})] * 2,
        ("read", "read", {"path": "a"}),
    )
    results = face.run(batch)
    assert [type(result.error) for result in results] == [TypeError, TypeError, type(None)]
    assert batch.stats().running == 0


@both
def test_a_batch_that_cannot_be_planned_loses_nothing(face: Any) -> None:
    """The error is raised, every handle tells, the statistics add up, and the batch can be used again."""
    batch = face.batch(face.store(a=1))
    handles = fill(batch, ("read", "read", {"path": "a"}), (Unhashable("odd"), "read", {"path": "a"}))
    with pytest.raises(ZeroDivisionError):
        face.run(batch)
    assert all(isinstance(handle.result().error, Cancelled) for handle in handles)
    stats = batch.stats()
    assert (stats.queued, stats.running, stats.cancelled) == (0, 0, 2)
    batch.add_operation("read", "read", {"path": "a"})
    assert face.run(batch)[0].value == {"value": 1}


def test_a_batch_that_runs_on_one_event_loop_is_refused_to_another() -> None:
    """WrongEventLoop, at once; what was added stays."""
    batch = AsyncBatchOptimizer(AsyncFiles())

    async def main() -> None:
        batch.add_operation("write", "nap", {"seconds": 30})
        running = asyncio.ensure_future(batch.optimize_batch_execution())
        await asyncio.sleep(0.01)
        batch.add_operation("write", "nap", {})
        with pytest.raises(WrongEventLoop, match="runs of batch"):
            await asyncio.to_thread(lambda: asyncio.run(batch.optimize_batch_execution()))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())
    assert len(asyncio.run(batch.optimize_batch_execution())) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_is_forked_in_a_tool_counts_nothing_of_its_parents() -> None:
    """Nothing is under way there, before and after the call has ended in it."""

    class Forking:
        child: int | None = None

        async def call_tool(self, tool_name: str, arguments: Any) -> None:
            self.child = os.fork()

    def progress(done: int, total: int) -> None:
        if store.child == 0:
            os._exit(0 if batch.stats().running == 0 else 1)

    store = Forking()
    batch = AsyncBatchOptimizer(store, progress=progress)
    batch.add_operation("write", "fork", {})
    asyncio.run(batch.optimize_batch_execution())
    assert store.child is not None
    assert os.waitstatus_to_exitcode(os.waitpid(store.child, 0)[1]) == 0
    assert batch.stats().running == 0
