"""The guide's batch: its program on real stores and servers, and what its own code gets wrong."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from guide import naive

from storescope.core import BatchOptimizer
from storescope.core.errors import DeadlineExceeded, ToolFailed

#: Names the folder whose `node_modules` has npm's servers, and promises that they are there: `.ci/run` sets it.
NODE_FOLDER = os.environ.get("STORESCOPE_TEST_NODE_FOLDER")


def text(result: Any) -> str:
    """Return the text of a result of either generation of mcpstore."""
    content = result["content"] if isinstance(result, dict) else result.content
    return content[0]["text"] if isinstance(content[0], dict) else content[0].text


@pytest.fixture(params=["files", "npm"])
def prefix(request: pytest.FixtureRequest, context: Any, tmp_path: Path) -> Iterator[str]:
    """What the tools are called by: those of the test server, or of npm's server-filesystem beside it."""
    if request.param == "npm":
        if NODE_FOLDER is None:
            pytest.skip("STORESCOPE_TEST_NODE_FOLDER does not name a folder with npm's MCP servers")
        script = Path(NODE_FOLDER, "node_modules/@modelcontextprotocol/server-filesystem/dist/index.js")
        node = shutil.which("node")
        assert node is not None, "there is no node here"
        context.add_service({"name": "npm", "command": node, "args": [str(script), str(tmp_path)]})
        context.wait_service("npm")
    yield f"{request.param}_"
    if request.param == "npm":
        if hasattr(context, "delete_service"):  # mcpstore 1.5.x
            context.delete_service("npm")
        else:
            context.find_service("npm").remove_service()


@pytest.mark.anystore
def test_fifty_reads_and_fifty_writes_are_done_and_told(prefix: str, store: Any, tmp_path: Path) -> None:
    """The program of the guide: every file is written, and each result stands where its operation was added."""
    for i in range(50):
        (tmp_path / f"file_{i}.txt").write_text(f"text {i}")

    batch_optimizer = BatchOptimizer(store)
    for i in range(50):
        batch_optimizer.add_operation("read", f"{prefix}read_file", {"path": str(tmp_path / f"file_{i}.txt")})
        batch_optimizer.add_operation(
            "write",
            f"{prefix}write_file",
            {"path": str(tmp_path / f"output_{i}.txt"), "content": f"Content {i}"},
        )
    start_time = time.time()
    results = batch_optimizer.optimize_batch_execution()
    execution_time = time.time() - start_time

    assert [text(result.unwrap()) for result in results[::2]] == [f"text {i}" for i in range(50)]
    assert all(result.ok and result.attempts == 1 for result in results[1::2])
    assert [(tmp_path / f"output_{i}.txt").read_text() for i in range(50)] == [
        f"Content {i}" for i in range(50)
    ]
    assert max(result.duration for result in results) <= execution_time
    assert batch_optimizer.operation_queue == ()
    assert batch_optimizer.get_stats()["succeeded"] == 100


@pytest.mark.anystore
def test_a_file_that_is_not_there_is_one_failing_operation(store: Any, tmp_path: Path) -> None:
    """What the server marks as an error is an error, with the server's words; the others are as they were."""
    (tmp_path / "there.txt").write_text("here I am")
    batch = BatchOptimizer(store)
    for name in ("there.txt", "missing.txt", "there.txt"):
        batch.add_operation("read", "files_read_file", {"path": str(tmp_path / name)})
    first, missing, shared = batch.optimize_batch_execution()
    assert (text(first.value), text(shared.value), shared.attempts) == ("here I am", "here I am", 0)
    assert isinstance(missing.error, ToolFailed)
    assert "No such file" in str(missing.error)


class Shelf:
    """A store of texts by path; it has no `batch_call`, as no store has one by itself."""

    def __init__(self, **texts: str) -> None:
        self.texts = texts
        self.calls: list[str] = []
        self.reading = 0
        self.disturbed = False
        self.lock = threading.Lock()

    def call_tool(self, tool_name: str, arguments: Any) -> Any:
        with self.lock:
            self.calls.append(tool_name)
        return getattr(self, tool_name)(**arguments)

    def read(self, path: str) -> str:
        return self.texts[path]

    def slow_read(self, path: str) -> str:
        with self.lock:
            self.reading += 1
        time.sleep(0.03)
        with self.lock:
            self.reading -= 1
        return self.texts[path]

    def write(self, path: str, content: str) -> str:
        with self.lock:
            self.disturbed |= self.reading > 0
        time.sleep(0.005)
        self.texts[path] = content
        return "written"


class ShelfWithBatches(Shelf):
    """The store that the guide's code needs: a batch fails where a call does."""

    def batch_call(self, calls: list[dict[str, Any]]) -> list[Any]:
        return [self.call_tool(call["tool_name"], call["arguments"]) for call in calls]


def both(reason: str) -> Any:
    """Naive, which fails for this reason, and ours."""
    naively = pytest.param(
        naive.BatchOptimizer, id="naive", marks=pytest.mark.xfail(strict=True, reason=reason)
    )
    return pytest.mark.parametrize("kind", [naively, pytest.param(BatchOptimizer, id="ours")])


def values(results: list[Any]) -> list[Any]:
    """Return what operations gave, whether a result is a bare value or a `ToolResult`."""
    return [getattr(result, "value", result) for result in results]


@both("an operation of any other type is dropped without a word")
def test_every_type_is_executed(kind: Any) -> None:
    """Whatever the type is called."""
    batch = kind(ShelfWithBatches(a="x"))
    batch.add_operation("search", "read", {"path": "a"})
    assert values(batch.optimize_batch_execution()) == ["x"]


@both("all groups are submitted at once")
def test_no_write_meets_a_reader(kind: Any) -> None:
    """Every read precedes every write."""
    store = ShelfWithBatches(a="before")
    batch = kind(store)
    batch.add_operation("write", "write", {"path": "a", "content": "after"})
    for _ in range(3):
        batch.add_operation("read", "slow_read", {"path": "a"})
    results = values(batch.optimize_batch_execution())
    assert results.count("before") == 3
    assert not store.disturbed


@both("results come in the order of completion")
def test_each_result_stands_where_its_operation_was_added(kind: Any) -> None:
    """So everybody knows whose it is."""
    batch = kind(ShelfWithBatches(a="x", b="y"))
    batch.add_operation("write", "write", {"path": "c", "content": "z"})
    batch.add_operation("read", "read", {"path": "a"})
    batch.add_operation("delete", "write", {"path": "d", "content": ""})
    batch.add_operation("read", "read", {"path": "b"})
    assert values(batch.optimize_batch_execution()) == ["written", "x", "written", "y"]


@both("a failed batch is printed, and its results vanish")
def test_a_failing_operation_hides_no_other(kind: Any) -> None:
    """There is a result for each, the failure among them."""
    batch = kind(ShelfWithBatches(a="x"))
    for path in ("a", "missing", "a"):
        batch.add_operation("read", "read", {"path": path})
    first, failed, last = batch.optimize_batch_execution()
    assert values([first, last]) == ["x", "x"]
    assert isinstance(failed.error, KeyError)


@both("the queue is cleared after the run")
def test_what_is_added_during_a_run_is_kept(kind: Any) -> None:
    """It is executed by the next run, and once."""

    class Growing(ShelfWithBatches):
        def grow(self) -> str:
            batch.add_operation("read", "read", {"path": "a"})
            return "grown"

    batch = kind(Growing(a="late"))
    batch.add_operation("read", "grow", {})
    assert values(batch.optimize_batch_execution()) == ["grown"]
    assert values(batch.optimize_batch_execution()) == ["late"]
    assert values(batch.optimize_batch_execution()) == []


@both("it needs a batch_call that no store has")
def test_call_tool_is_all_that_a_store_needs(kind: Any) -> None:
    """A store as it is."""
    batch = kind(Shelf(a="x"))
    batch.add_operation("read", "read", {"path": "a"})
    assert values(batch.optimize_batch_execution()) == ["x"]


@both("there are no deadlines")
def test_an_operation_may_have_a_deadline(kind: Any) -> None:
    """And the others are not held up by it."""
    batch = kind(ShelfWithBatches(a="x"))
    batch.add_operation("read", "slow_read", {"path": "a"}, timeout=0.001)
    batch.add_operation("read", "read", {"path": "a"})
    late, good = batch.optimize_batch_execution()
    assert isinstance(late.error, DeadlineExceeded)
    assert good.value == "x"


@both("there are no retries")
def test_a_read_that_fails_may_be_tried_again(kind: Any) -> None:
    """As often as is asked for."""

    class Flaky(ShelfWithBatches):
        def read(self, path: str) -> str:
            if len(self.calls) < 3:
                raise ConnectionError("not yet")
            return super().read(path)

    batch = kind(Flaky(a="x"), retries=2, backoff=0)
    batch.add_operation("read", "read", {"path": "a"})
    (result,) = batch.optimize_batch_execution()
    assert (result.value, result.attempts) == ("x", 3)


@both("there is no progress but what is printed")
def test_progress_is_told_to_who_asks(kind: Any) -> None:
    """After each operation, of how many."""
    steps: list[tuple[int, int]] = []
    batch = kind(ShelfWithBatches(a="x"), progress=lambda done, total: steps.append((done, total)))
    for _ in range(3):
        batch.add_operation("read", "read", {"path": "a"})
    batch.optimize_batch_execution()
    assert steps == [(1, 3), (2, 3), (3, 3)]


@both("it prints")
def test_nothing_is_printed(kind: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Output is the program's."""
    batch = kind(ShelfWithBatches(a="x"))
    batch.add_operation("read", "read", {"path": "a"})
    batch.add_operation("read", "read", {"path": "missing"})
    batch.optimize_batch_execution()
    assert capsys.readouterr() == ("", "")


@both("identical reads run twice")
def test_identical_reads_are_one_call(kind: Any) -> None:
    """And everybody who asked has the answer."""
    store = ShelfWithBatches(a="x", b="y")
    batch = kind(store)
    for path in "abab":
        batch.add_operation("read", "read", {"path": path})
    assert values(batch.optimize_batch_execution()) == ["x", "y", "x", "y"]
    assert Counter(store.calls) == {"read": 2}
