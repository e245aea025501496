"""`STORESCOPE_TARGETS`: any callable is observed, without an adapter for it."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from integration.harness import Runner
from unit.desk import SOURCE, Desk

from storescope import semconv


def call(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a function of whichever kind."""
    result = function(*args, **kwargs)
    return asyncio.run(result) if inspect.iscoroutine(result) else result


#: Each kind of callable, how to get it from the module, and whether its result has its class with it.
KINDS = {
    "call": lambda desk: desk.call,
    "call_async": lambda desk: desk.call_async,
    "Desk.call": lambda desk: desk.Desk().call,
    "Desk.call_async": lambda desk: desk.Desk().call_async,
    "Desk.make": lambda desk: lambda *args, **kwargs: desk.Desk.make(*args, **kwargs)[1],
    "Desk.build": lambda desk: desk.Desk().build,
    "Special.call": lambda desk: desk.Special().call,
    "Special.build": lambda desk: desk.Special.build,
}


@pytest.mark.parametrize("passed", ["by position", "by keyword"])
@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_of_callable_is_observed(desk: Desk, kind: str, passed: str) -> None:
    """Functions, methods, class and static methods, sync and async: one CLIENT span and one record of the tool."""
    module = desk.observe(f"desk:{kind}=tools/call")
    function = KINDS[kind](module)
    by_short_names = kind in ("call_async", "Desk.make", "Desk.build", "Special.build")
    names = ("name", "args") if by_short_names else ("tool_name", "arguments")
    given = {"text": "héé"}
    if passed == "by position":
        assert call(function, "echo", given) is given
    else:
        assert call(function, **dict(zip(names, ("echo", given), strict=True))) is given

    span = desk.span()
    assert (span.name, span.kind, span.status) == ("tools/call echo", "CLIENT", "UNSET")
    expected = {
        "mcp.method.name": "tools/call",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "echo",
        "storescope.request.size": len("text") + 5,
        "storescope.response.size": len("text") + 5,
    }
    assert span.attributes.items() >= expected.items()
    assert desk.recorder.count(semconv.CLIENT_OPERATION_DURATION, gen_ai__tool__name="echo") == 1


def test_a_service_is_named_by_its_parameter(desk: Desk) -> None:
    """`service_name` says which service a call is for."""
    module = desk.observe("desk:call_async=tools/call")
    call(module.call_async, "echo", service_name="lab")

    assert desk.span().attributes[semconv.SERVICE_NAME] == "lab"


@pytest.mark.parametrize(
    ("target", "argument", "name", "attributes"),
    [
        ("prompt=prompts/get", "hi", "prompts/get hi", {"gen_ai.prompt.name": "hi"}),
        ("read=resources/read", "lab://u:p@a?k=v", "resources/read", {"mcp.resource.uri": "lab://a"}),
        ("prompt=tools/list", "hi", "tools/list", {}),
    ],
)
def test_other_mcp_methods_are_requests_too(
    desk: Desk, target: str, argument: str, name: str, attributes: dict[str, str]
) -> None:
    """An operation with a `/` is a CLIENT span, with the prompt or the resource that the method is about."""
    module = desk.observe(f"desk:Desk.Drawer.{target}")
    getattr(module.Desk.Drawer(), target.partition("=")[0])(argument)

    span = desk.span()
    assert (span.name, span.kind) == (name, "CLIENT")
    assert span.attributes.items() >= attributes.items()
    assert "gen_ai.tool.name" not in span.attributes


def test_an_operation_without_a_slash_is_the_stores_own(desk: Desk) -> None:
    """It is an INTERNAL span `{operation} {service}` without `mcp.*`, and not among the requests."""
    module = desk.observe("desk:Desk.Drawer.tidy=tidy_up")
    assert module.Desk.Drawer().tidy("lab") == "lab"

    span = desk.span()
    assert (span.name, span.kind) == ("tidy_up lab", "INTERNAL")
    assert span.attributes[semconv.STORE_OPERATION] == "tidy_up"
    assert not [name for name in span.attributes if name.startswith(("mcp.", "gen_ai."))]
    assert desk.recorder.count(semconv.OPERATION_DURATION, storescope__store__operation="tidy_up") == 1
    assert desk.recorder.count(semconv.CLIENT_OPERATION_DURATION) == 0


@pytest.mark.parametrize("mark", ["is_error", "isError"])
@pytest.mark.parametrize("shape", ["dict", "object"])
def test_a_result_that_is_marked_as_an_error_is_one(desk: Desk, shape: str, mark: str) -> None:
    """As a dict or an object, in snake or camel case; what the result says is the description, redacted."""
    module = desk.observe("desk:answer=tools/call")
    text = "no such thing password=hunter2"
    as_dict = {"content": [{"type": "text", "text": text}], mark: True}
    result = as_dict if shape == "dict" else module.Answer(text, **{mark: True})
    assert module.answer("echo", result) is result

    span = desk.span()
    assert (span.status, span.attributes["error.type"]) == ("ERROR", "tool_error")
    assert span.message == "no such thing password=[redacted]"
    assert span.attributes[semconv.RESPONSE_SIZE] == len(text)
    assert desk.recorder.count(semconv.CLIENT_OPERATION_DURATION, error__type="tool_error") == 1


@pytest.mark.parametrize("mark", ["is_error", "isError"])
def test_a_result_that_is_not_marked_is_none(desk: Desk, mark: str) -> None:
    """False is no error, and neither is a mark that is no truth value."""
    module = desk.observe("desk:answer=tools/call")
    for result in ({mark: False}, module.Answer("fine", **{mark: None}), {mark: "no"}, "is_error"):
        module.answer("echo", result)
        assert desk.span().status == "UNSET"


def test_an_exception_is_the_applications_own(desk: Desk) -> None:
    """It is passed on as it is, and its type is the `error.type`."""
    module = desk.observe("desk:refuse=tools/call")
    with pytest.raises(ValueError, match=r"^no echo$") as raised:
        module.refuse("echo")

    assert raised.value.__context__ is None
    span = desk.span()
    assert (span.status, span.attributes["error.type"], span.message) == ("ERROR", "ValueError", "no echo")


@pytest.mark.parametrize("kind", ["call", "call_async", "Desk.call", "Desk.call_async"])
def test_bad_arguments_are_refused_as_before(desk: Desk, kind: str) -> None:
    """At the same moment, with the same exception, which nothing else stands behind."""
    bare = importlib.import_module("desk")
    function = KINDS[kind](bare)
    with pytest.raises(TypeError) as before:
        function()
    function = KINDS[kind](desk.observe(f"desk:{kind}=tools/call"))
    with pytest.raises(TypeError) as raised:
        function()

    assert str(raised.value) == str(before.value)
    assert raised.value.__context__ is None


@pytest.mark.parametrize("name", ["keyword_only", "anything"])
def test_arguments_are_found_wherever_they_are_named(desk: Desk, name: str) -> None:
    """By a parameter that has no position, or by none at all: their size and digest are those of what was given."""
    function = getattr(desk.observe(f"desk:{name}=tools/call"), name)
    for text in ("a", "b"):
        function(tool_name="echo", args={"text": text})

    first, second = desk.recorder.spans()
    assert first.attributes[semconv.REQUEST_SIZE] == len("text") + 1
    assert first.attributes[semconv.CALL_DIGEST] != second.attributes[semconv.CALL_DIGEST]


def test_without_known_arguments_there_is_no_digest(desk: Desk) -> None:
    """Calls whose arguments cannot be told from the rest must not pass for the same."""
    desk.observe("desk:search=tools/call").search("find", "a needle")
    attributes = desk.span().attributes
    for name in (semconv.CALL_DIGEST, semconv.CALL_DIGEST_SKIPPED, semconv.REQUEST_SIZE):
        assert name not in attributes


def test_what_is_not_quite_a_function_works_as_before(desk: Desk) -> None:
    """A partial function has no name, and is called like any other."""
    module = desk.observe("desk:bound=tools/call")

    assert asyncio.run(module.bound({"text": "hi"})) == {"text": "hi"}


def test_an_unknown_name_is_warned_of_once(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """The warning names it; the module's other callables are observed."""
    with caplog.at_level(logging.DEBUG):
        module = desk.observe("desk:Desk.gone=tools/call,desk:call=tools/call")
        module.call("echo")

    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "desk" in warning.getMessage()
    assert "Desk.gone" in warning.getMessage()
    assert desk.span().name == "tools/call echo"


@pytest.mark.parametrize("name", ["VERSION", "Desk", "Desk.size", "Desk.Drawer"])
def test_what_is_no_function_is_left_alone(desk: Desk, caplog: pytest.LogCaptureFixture, name: str) -> None:
    """A value, a property or a class is what it was, and one warning names it."""
    module = desk.observe(f"desk:{name}=tools/call")

    assert (type(module.VERSION), type(module.Desk().size)) == (str, int)
    assert (type(module.Desk), type(module.Desk.Drawer)) == (type, type)
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert f"desk:{name}" in warning.getMessage()


def test_a_module_that_is_never_imported_does_nothing(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a warning nor an import."""
    module = desk.observe("nowhere:call=tools/call,desk:call=tools/call")
    module.call("echo")

    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "nowhere" not in sys.modules


def test_a_module_that_fails_on_import_fails_as_before(desk: Desk, tmp_path: Path) -> None:
    """The application gets that very exception, each time, and nothing is said about it."""
    (tmp_path / "broken.py").write_text("import desk\nraise desk.oops\n")
    module = desk.observe("broken:call=tools/call")
    module.oops = LookupError("out of order")
    for _ in range(2):
        with pytest.raises(LookupError) as raised:
            importlib.import_module("broken")
        assert raised.value is module.oops
        assert "broken" not in sys.modules


def test_a_module_that_answers_no_question_is_imported_as_before(desk: Desk, tmp_path: Path) -> None:
    """A module whose `__getattr__` raises gets no question that its import would fail by."""
    (tmp_path / "lazy.py").write_text("def __getattr__(name):\n    raise RuntimeError(name)\n")
    desk.observe("lazy:call=tools/call")
    try:
        assert importlib.import_module("lazy").__name__ == "lazy"
    finally:
        sys.modules.pop("lazy", None)


PROGRAM = """
import asyncio, sys
import desk

print(desk.call("echo", {"text": "payl0ad"}))
print(asyncio.run(desk.Desk().call_async(tool_name="read", arguments={})))
print(desk.Desk.Drawer().tidy())
try:
    import broken
except LookupError as error:
    print(repr(error))
"""


def test_under_the_launcher(tmp_path: Path) -> None:
    """An unchanged program is observed, its output is what it was, and one warning names what does not exist."""
    runner = Runner(tmp_path)
    (tmp_path / "desk.py").write_text(SOURCE)
    (tmp_path / "broken.py").write_text("raise LookupError('out of order')")
    names = "desk:call=tools/call,desk:Desk.call_async=tools/call,desk:Desk.Drawer.tidy=tidy"
    targets = f"{names},desk:gone=tools/call,broken:call=tools/call,nowhere:call=tools/call"
    bare = runner.run(PROGRAM, launcher=False).check()
    finished = runner.run(PROGRAM, env={"STORESCOPE_TARGETS": targets}).check()

    assert "LookupError('out of order')" in bare.stdout
    assert finished.stdout == bare.stdout
    assert [span.name for span in finished.spans()] == ["tools/call echo", "tools/call read", "tidy"]
    (line,) = finished.stderr.splitlines()
    assert "desk has no gone" in line
    assert "payl0ad" not in finished.written()
