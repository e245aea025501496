"""A broken adapter costs what it should have told, and one warning; no application notices."""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from unit.desk import Desk, Warnings
from unit.installed import install

from storescope import semconv

BOOKCASE = """
class Bookcase:
    def call(self, tool):
        if isinstance(tool, BaseException):
            raise tool
        return tool

    async def call_async(self, tool):
        if isinstance(tool, BaseException):
            raise tool
        return tool
"""

#: An adapter that works, but for what is put in the place of a line of it.
ADAPTER = """
from storescope.stores import Described, Outcome, PatchTarget, Role, Subject

def targets():
    return (
        PatchTarget("bookcase", "Bookcase.call", Role.REQUEST, "tools/call"),
        PatchTarget("bookcase", "Bookcase.call_async", Role.REQUEST, "tools/call"),
    )

class Adapter:
    name = "bookcase"
    targets = targets()

    def reader(self, target):
        return self.read

    def read(self, instance, args, kwargs):
        return Described(Subject("tools/call book", {"bookcase": "top"}, {"bookcase": "top"}))

    def read_result(self, target, result):
        return None  # result

    def read_response(self, target, result):
        return None  # response

    def read_error(self, target, error):
        return Outcome(type(error).__name__, str(error))

make = Adapter
"""

MAKE, TARGETS, READER = "make = Adapter", "targets = targets()", "return self.read"
RESULT, RESPONSE = "return None  # result", "return None  # response"
SUBJECT = 'Subject("tools/call book", {"bookcase": "top"}, {"bookcase": "top"})'
READ = f"return Described({SUBJECT})"
ERROR = "return Outcome(type(error).__name__, str(error))"

#: What is wrong with an adapter: the part of it, and what stands in its place.
BROKEN = {
    "nothing": (MAKE, MAKE),
    "import fails": (MAKE, "import gone"),
    "import ends the program": (MAKE, "raise SystemExit(3)"),
    "entry point cannot be called": (MAKE, "make = 7"),
    "entry point raises": (MAKE, "def make(): raise ValueError('bad day')"),
    "entry point ends the program": (MAKE, "def make(): raise SystemExit(3)"),
    "entry point gives nothing": (MAKE, "def make(): return None"),
    "no targets": (TARGETS, ""),
    "targets are no sequence": (TARGETS, "targets = 7"),
    "targets raise": (TARGETS, "targets = property(lambda self: 1 / 0)"),
    "targets are garbage": (TARGETS, "targets = (None, 7, 'bookcase:Bookcase.call', *targets())"),
    "a target is garbage": (
        TARGETS,
        "targets = (PatchTarget('bookcase', 7, None, 8, 9, 10, 11), *targets())",
    ),
    "a module is garbage": (
        TARGETS,
        "targets = (PatchTarget(7, 'Bookcase.call', Role.REQUEST, ''), *targets())",
    ),
    "reader raises": (READER, "raise ValueError('bad day')"),
    "reader gives nothing": (READER, "return None"),
    "reading raises": (READ, "raise ValueError('bad day')"),
    "reading gives garbage": (READ, "return 7"),
    "a description is garbage": (READ, "return Described(7)"),
    "a subject is garbage": (SUBJECT, "Subject(7, 8, 9)"),
    "attributes are garbage": (SUBJECT, "Subject('tools/call book', {}, {'bookcase': [[]]})"),
    "read_result raises": (RESULT, "raise ValueError('bad day')"),
    "read_result gives garbage": (RESULT, "return 7"),
    "read_response raises": (RESPONSE, "raise ValueError('bad day')"),
    "read_response gives garbage": (RESPONSE, "return object()"),
    "read_error raises": (ERROR, "raise ValueError('bad day')"),
    "read_error gives nothing": (ERROR, "return None"),
    "read_error gives garbage": (ERROR, "return Outcome(7, 8, 9, 10)"),
}

#: What is no fault, or no different from a target that this release of a store does not have, or is left off.
UNNOTICED = {
    "nothing",
    "a target is garbage",
    "a module is garbage",
    "read_response gives garbage",
    "read_error gives nothing",
}
#: What some releases of the SDK take, and others do not.
SOMETIMES_NOTICED = {"attributes are garbage"}


@contextmanager
def bookcase(desk: Desk, fault: str) -> Iterator[None]:
    """Install the store with an adapter that has this fault."""
    part, instead = BROKEN[fault]
    assert part in ADAPTER
    modules = {"bookcase": BOOKCASE, "bookcase_adapter": ADAPTER.replace(part, instead)}
    compile(modules["bookcase_adapter"], "bookcase_adapter", "exec")
    door = "[storescope_store]\nbookcase = bookcase_adapter:make\n"
    install(desk.folder, "bookcase", entry_points=door, **modules)
    try:
        yield
    finally:
        for module in modules:
            sys.modules.pop(module, None)


def call(function: Any, *args: Any) -> Any:
    """Call a function of whichever kind."""
    result = function(*args)
    return asyncio.run(result) if asyncio.iscoroutine(result) else result


@pytest.mark.parametrize("face", ["call", "call_async"])
@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_adapter_harms_nobody(desk: Desk, warnings: Warnings, fault: str, face: str) -> None:
    """Its store gives and raises what it did, others are observed as before, and one warning is enough."""
    with bookcase(desk, fault):
        other = desk.observe("desk:call=tools/call")
        function = getattr(importlib.import_module("bookcase").Bookcase(), face)
        book = object()
        for _ in range(2):
            assert call(function, book) is book
            with pytest.raises(LookupError) as raised:
                call(function, LookupError("no such book"))
            assert str(raised.value) == "no such book"
            assert raised.value.__context__ is None

    assert fault in SOMETIMES_NOTICED or len(warnings) == (fault not in UNNOTICED)
    desk.recorder.clear()
    other.call("echo")
    span = desk.span()
    assert (span.name, span.parent_id) == ("tools/call echo", "")
    if fault == "nothing":
        assert desk.recorder.count(semconv.CLIENT_OPERATION_DURATION, bookcase="top") == 4


def test_a_warning_tells_nothing_of_the_application(desk: Desk, warnings: Warnings) -> None:
    """The stack trace of an adapter's failure ends with the adapter: what the application raised is not in it."""
    with bookcase(desk, "read_error raises"):
        desk.observe("")
        with pytest.raises(LookupError):
            importlib.import_module("bookcase").Bookcase().call(LookupError("payl0ad"))

    (warning,) = warnings.records()
    assert warning.exc_info is not None
    text = logging.Formatter().format(warning)
    assert "bad day" in text
    assert "payl0ad" not in text
