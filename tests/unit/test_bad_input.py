"""What the agent is not made for: the application gets what it would have got, and at most one warning says so."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
from integration.harness import Runner
from receivers import http_receiver
from unit.desk import SOURCE, Desk, Warnings

from storescope import semconv
from storescope.instrumentation.telemetry import MAX_NAMES


class Raising:
    """An object of which nothing can be asked."""

    def _raise(self, *given: Any) -> Any:
        raise ValueError("do not touch")

    __repr__ = __str__ = __eq__ = __hash__ = __len__ = __iter__ = __bool__ = __getattr__ = _raise  # type: ignore[assignment]
    __class__ = property(_raise)  # type: ignore[assignment]


class RaisingDict(dict):  # type: ignore[type-arg]
    """A dict of which nothing can be asked."""

    _raise = Raising._raise
    __repr__ = __eq__ = __hash__ = __len__ = __iter__ = __getitem__ = __contains__ = _raise  # type: ignore[assignment]
    get = keys = values = items = _raise  # type: ignore[assignment]


class RaisingText(str):
    """A text of which nothing can be asked."""

    __slots__ = ()
    _raise = Raising._raise
    __repr__ = __str__ = __eq__ = __hash__ = __len__ = __iter__ = __getitem__ = __bool__ = _raise  # type: ignore[assignment]
    encode = isascii = _raise  # type: ignore[assignment]


class RaisingList(list):  # type: ignore[type-arg]
    """A list of which nothing can be asked."""

    _raise = Raising._raise
    __repr__ = __eq__ = __hash__ = __len__ = __iter__ = __getitem__ = _raise  # type: ignore[assignment]


def itself() -> dict[str, Any]:
    """Return a dict that contains itself, also by way of a list."""
    value: dict[str, Any] = {}
    value["list"] = [value]
    value["list"].append(value["list"])
    return value


def deep() -> list[Any]:
    """Return a list in a list in a list, and so on."""
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


#: Payloads of every unknown shape, and why each has no digest, as far as it has none.
PAYLOADS = {
    "nothing": (lambda: None, None),
    "a number": (lambda: 7, None),
    "a huge number": (lambda: 1 << 100_000, "size"),
    "text": (lambda: "text", None),
    "half a character": (lambda: {"text": "\ud800"}, None),
    "a list": (lambda: ["text", 7, None], None),
    "data": (lambda: b"\x00\xff", None),
    "wrong types": (lambda: {"content": 7, "isError": "yes", "is_error": 1}, None),
    "wrong parts": (lambda: {"content": [7, None, {"text": 7}, {"data": {}}], "isError": False}, None),
    "names that are none": (lambda: {7: "a", None: "b", ("c",): "d"}, "type"),
    "an object": (object, "type"),
    "a class": (lambda: dict, "type"),
    "a generator": (lambda: (letter for letter in "text"), "type"),
    "a raising object": (Raising, "type"),
    "a raising object in a dict": (lambda: {"text": Raising(), "content": [Raising()]}, "type"),
    "a raising dict": (lambda: RaisingDict(text="a"), "type"),
    "a raising list": (lambda: RaisingList(["a"]), "type"),
    "a raising text": (lambda: {"text": RaisingText("a")}, "type"),
    "itself": (itself, "nodes"),
    "deep": (deep, "nodes"),
    "wide": (lambda: dict.fromkeys(map(str, range(100_000))), "nodes"),
    "50 MB": (lambda: {"text": "x" * 50_000_000}, "size"),
    "50 MB of foreign text": (lambda: ["я" * 25_000_000], "size"),
    "50 MB of data": (lambda: bytearray(50_000_000), "size"),
}  # fmt: skip


@pytest.mark.parametrize("capture", ["", "arguments,results"])
@pytest.mark.parametrize("kind", PAYLOADS)
def test_arguments_of_any_kind_are_passed_on(desk: Desk, warnings: Warnings, kind: str, capture: str) -> None:
    """They reach the callable untouched, and the call is recorded like any other, with the payload or without."""
    make, skipped = PAYLOADS[kind]
    module = desk.observe("desk:Desk.call=tools/call", STORESCOPE_CAPTURE=capture)
    arguments = make()
    assert module.Desk().call("echo", arguments) is arguments

    assert not warnings.records()
    attributes = desk.span().attributes
    assert attributes.get(semconv.CALL_DIGEST_SKIPPED) == skipped
    assert (semconv.CALL_DIGEST in attributes) is (skipped is None)
    captured = attributes.get(semconv.GEN_AI_TOOL_CALL_ARGUMENTS)
    assert (captured is not None) is bool(capture)
    assert len((captured or "").encode()) <= 4096
    assert desk.recorder.count(semconv.CLIENT_OPERATION_DURATION, gen_ai__tool__name="echo") == 1


@pytest.mark.parametrize("capture", ["", "arguments,results"])
@pytest.mark.parametrize("kind", PAYLOADS)
def test_results_of_any_kind_are_passed_on(desk: Desk, warnings: Warnings, kind: str, capture: str) -> None:
    """A result that says nothing of an error is a success, whatever it is."""
    module = desk.observe("desk:answer=tools/call", STORESCOPE_CAPTURE=capture)
    result = PAYLOADS[kind][0]()
    assert module.answer("echo", result) is result

    assert not warnings.records()
    span = desk.span()
    assert span.status == "UNSET"
    assert len(span.attributes.get(semconv.GEN_AI_TOOL_CALL_RESULT, "").encode()) <= 4096
    assert desk.recorder.count(semconv.CLIENT_OPERATION_DURATION, gen_ai__tool__name="echo") == 1


NAMES = {
    "nothing": lambda: None,
    "a number": lambda: 7,
    "no text": lambda: "",
    "not ASCII": lambda: "поиск_✓",
    "half a character": lambda: "\ud800",
    "long": lambda: "x" * 100_000,
    "a raising text": lambda: RaisingText("echo"),
    "a raising object": Raising,
    "a list": list,
}


@pytest.mark.parametrize("kind", NAMES)
def test_a_tools_name_may_be_anything(desk: Desk, warnings: Warnings, kind: str) -> None:
    """The call is made as it would have been, and the next one is observed as ever."""
    module = desk.observe("desk:call=tools/call")
    given = {"text": "a"}
    for _ in range(2):
        assert module.call(NAMES[kind](), given) is given

    assert len(warnings) <= 1
    desk.recorder.clear()
    module.call("echo")
    assert desk.span().name == "tools/call echo"


class RaisingError(Exception):
    """An exception that cannot be told about."""

    _raise = Raising._raise
    __repr__ = __str__ = __eq__ = __getattr__ = _raise  # type: ignore[assignment]
    __hash__ = Exception.__hash__


class RaisingTimeout(TimeoutError):
    """A deadline that cannot either."""

    __str__ = Raising._raise  # type: ignore[assignment]


ERRORS = {
    "without text": (RaisingError, "RaisingError"),
    "a deadline without text": (RaisingTimeout, "RaisingTimeout"),
    "50 MB": (lambda: ValueError("x" * 50_000_000), "ValueError"),
    "half a character": (lambda: ValueError("\ud800"), "ValueError"),
    "no text at all": (lambda: ValueError(7, None, [itself()]), "ValueError"),
    "the end of the program": (lambda: SystemExit(3), "SystemExit"),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_exceptions_of_any_kind_are_passed_on(desk: Desk, warnings: Warnings, kind: str) -> None:
    """The application gets that very exception, and the call has failed with its type, whatever else it may tell."""
    module = desk.observe("desk:fail=tools/call")
    error, error_type = ERRORS[kind][0](), ERRORS[kind][1]
    for _ in range(2):
        with pytest.raises(BaseException) as raised:  # noqa: PT011 - that it is this one is what is tested
            module.fail("echo", error)
        assert raised.value is error

    assert len(warnings) <= 1
    assert [span.status for span in desk.recorder.spans()] == ["ERROR", "ERROR"]
    assert desk.recorder.count(semconv.CLIENT_OPERATION_DURATION, error__type=error_type) == 2


class FailingHandler(logging.Handler):
    """A log handler of the application's that cannot cope with our warnings."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("the log is full")


def test_a_warning_that_cannot_be_logged_harms_nobody(desk: Desk) -> None:
    """What the application's log handlers raise does not reach its calls."""
    module = desk.observe("desk:fail=tools/call,desk:call=tools/call,desk:gone=tools/call")
    handler = FailingHandler()
    logging.getLogger().addHandler(handler)
    try:
        error = RaisingError()
        with pytest.raises(RaisingError) as raised:
            module.fail("echo", error)
        assert raised.value is error
        assert module.call(RaisingText("echo"), 7) == 7
    finally:
        logging.getLogger().removeHandler(handler)
    desk.recorder.clear()
    module.call("echo")
    assert desk.span().parent_id == ""


def test_a_generator_is_not_consumed(desk: Desk) -> None:
    """Neither as arguments nor as a result."""
    module = desk.observe("desk:answer=tools/call", STORESCOPE_CAPTURE="arguments,results")

    assert list(module.answer("echo", iter("text"))) == ["t", "e", "x", "t"]


UNENCODABLE = """
import desk

for name in ("first", "half \\ud800", "last"):
    desk.call(name, {"text": "\\ud800"})
"""


def test_a_name_that_utf8_lacks_costs_no_batch(tmp_path: Path) -> None:
    """Half a character is replaced: an exporter that cannot encode it would refuse all spans beside it."""
    (tmp_path / "desk.py").write_text(SOURCE)
    with http_receiver() as receiver:
        env = {
            "STORESCOPE_TARGETS": "desk:call=tools/call",
            "STORESCOPE_CAPTURE": "arguments,results",
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        }
        finished = Runner(tmp_path).run(UNENCODABLE, env=env).check()

    assert receiver.spans == ["tools/call first", "tools/call half ?", "tools/call last"]
    assert finished.stderr == ""


def test_the_agent_keeps_no_store_alive(desk: Desk) -> None:
    """A store that is forgotten after a call, or during one, is gone as soon as without the agent."""
    module = desk.observe("desk:Desk.call=tools/call,desk:Desk.call_async=tools/call")
    store = module.Desk()
    gone = weakref.ref(store)
    assert store.call("echo", {"a": 1}) == {"a": 1}
    coroutine = store.call_async("echo", {"a": 1})
    del store
    assert gone() is not None
    assert asyncio.run(coroutine) == {"a": 1}
    assert gone() is None


MANY_NAMES = """
import desk

for number in range(10_000):
    assert desk.call(f"tool_{number}") is None
assert desk.call("tool_0") is None
"""


def test_ten_thousand_tools_are_a_thousand_series(tmp_path: Path) -> None:
    """Beyond `MAX_NAMES` names metrics show the others together, and one warning says so."""
    (tmp_path / "desk.py").write_text(SOURCE)
    env = {"STORESCOPE_TARGETS": "desk:call=tools/call", "OTEL_TRACES_EXPORTER": "none"}
    finished = Runner(tmp_path).run(MANY_NAMES, env=env).check()

    points = [point for point in finished.points() if point.metric == semconv.CLIENT_OPERATION_DURATION]
    assert len(points) == MAX_NAMES + 1
    assert sum(point.count for point in points) == 10_001
    (others,) = (point for point in points if semconv.METRIC_OVERFLOW in point.attributes)
    assert others.attributes == {
        "mcp.method.name": "tools/call", "gen_ai.operation.name": "execute_tool", "otel.metric.overflow": True,
    }  # fmt: skip
    assert others.count == 10_000 - MAX_NAMES
    (line,) = finished.stderr.splitlines()
    assert f"more than {MAX_NAMES} names of tools" in line
    assert "otel.metric.overflow" in line


FULL = """
import json, resource, sys
import desk

resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
for number in range(1000):
    desk.call("echo", {"number": number})
print("done")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_folder_without_room_costs_telemetry_alone(tmp_path: Path) -> None:
    """Where no more can be written, what was written can be read, one warning says it, and the program goes on."""
    (tmp_path / "desk.py").write_text(SOURCE)
    finished = Runner(tmp_path).run(FULL, env={"STORESCOPE_TARGETS": "desk:call=tools/call"}).check()

    assert finished.stdout == "done\n"
    (line,) = finished.stderr.splitlines()
    assert str(finished.directory) in line
    for path in finished.directory.glob("*.jsonl"):
        for written in path.read_text("utf-8").splitlines():
            json.loads(written)
