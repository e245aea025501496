"""What is patched, and what comes back, on a module of the test's own."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import importlib
import inspect
import itertools
import logging
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import wrapt
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from storescope import notices
from storescope.instrumentation.patching import Patcher
from storescope.instrumentation.telemetry import Telemetry
from storescope.stores import Described, Outcome, PatchTarget, Reader, Role, Style, Subject

SHOP = '''
import asyncio
import types

@types.coroutine
def suspend():
    yield

class Base:
    def inherited(self):
        return "inherited"

class Store(Base):
    def call(self, text="hi"):
        """Call something."""
        if isinstance(text, BaseException):
            raise text
        return text

    async def call_async(self, text="hi"):
        return self.call(text)

    async def wait(self):
        await suspend()

    def promise(self):
        return asyncio.get_running_loop().create_future()

    @staticmethod
    def build(text="hi"):
        return text

    @classmethod
    def make(cls, text="hi"):
        return cls, text

class Special(Store):
    pass

def open_store(text="hi"):
    return text
'''


class Shop:
    """An adapter for the module above."""

    name = "shop"
    targets = (
        PatchTarget("shop", "Store.call", Role.REQUEST, "call", Style.SYNC, ("text",)),
        PatchTarget("shop", "Store.call_async", Role.REQUEST, "call", Style.COROUTINE, ("text",)),
        PatchTarget("shop", "Store.wait", Role.OPERATION, "wait", Style.COROUTINE),
        PatchTarget("shop", "Store.promise", Role.OPERATION, "promise", Style.FUTURE),
        PatchTarget("shop", "Store.build", Role.OPERATION, "build", Style.SYNC, ("text",)),
        PatchTarget("shop", "Store.make", Role.OPERATION, "make", Style.SYNC, ("text",)),
        PatchTarget("shop", "Store.inherited", Role.OPERATION, "inherited"),
        PatchTarget("shop", "Special.call", Role.REQUEST, "call", Style.SYNC, ("text",)),
        PatchTarget("shop", "open_store", Role.OPERATION, "open", Style.SYNC, ("text",)),
        PatchTarget("shop", "Store.gone", Role.OPERATION, "gone"),
        PatchTarget("shop", "Gone.call", Role.OPERATION, "gone"),
    )

    def reader(self, target: PatchTarget) -> Reader:
        def read(instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Described:
            if target.given(args, kwargs).get("text") == "unreadable":
                raise ValueError("unreadable")
            return Described(Subject(f"{target.operation} shop", {"shop": "corner"}, {"shop": "corner"}))

        return read

    def read_result(self, target: PatchTarget, result: Any) -> Outcome:
        if result == "surprising":
            raise ValueError("surprising")
        return Outcome()

    def read_error(self, target: PatchTarget, error: BaseException) -> Outcome:
        return Outcome(type(error).__name__, str(error))


class Bench:
    """A shop that can be imported, and what the agent records of it."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meter_provider = MeterProvider([self.reader], shutdown_on_exit=False)

    def patch(self) -> Patcher:
        return Patcher(Telemetry(self.tracer_provider, self.meter_provider), [Shop()])

    def spans(self) -> Sequence[ReadableSpan]:
        spans = self.exporter.get_finished_spans()
        self.exporter.clear()
        return spans

    def names(self) -> list[str]:
        return [span.name for span in self.spans()]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    (tmp_path / "shop.py").write_text(SHOP)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    benches = Bench()
    yield benches
    sys.modules.pop("shop", None)
    benches.tracer_provider.shutdown()
    benches.meter_provider.shutdown()


def raw_values(module: types.ModuleType) -> dict[str, Any]:
    """Return what really stands in each class and in the module, descriptors as they are."""
    owners = [module, *(value for value in vars(module).values() if inspect.isclass(value))]
    return {
        f"{owner.__name__}.{name}": value
        for owner in owners
        for name, value in vars(owner).items()
        if not name.startswith("__")
    }


def wrappers(values: dict[str, Any]) -> set[str]:
    return {name for name, value in values.items() if isinstance(value, wrapt.FunctionWrapper)}


@pytest.mark.parametrize("order", ["import patch undo", "patch import undo", "import patch undo patch undo"])
def test_undoing_brings_the_raw_values_back(bench: Bench, order: str) -> None:
    """Whenever the module is imported, every attribute is as it was: static, class and inherited ones too."""
    before: dict[str, Any] = {}
    patchers: list[Patcher] = []
    for step in order.split():
        if step == "import":
            shop = importlib.import_module("shop")
            before = before or raw_values(shop)
        elif step == "patch":
            patchers.append(bench.patch())
        else:
            assert wrappers(raw_values(shop)) == {
                "Store.call", "Store.call_async", "Store.wait", "Store.promise", "Store.build", "Store.make",
                "Store.inherited", "Special.call", "shop.open_store",
            }  # fmt: skip
            patchers[-1].undo()

    after = raw_values(shop)
    assert not wrappers(after)
    assert {type(value) for name, value in after.items() if name == "Store.build"} == {staticmethod}
    assert {type(value) for name, value in after.items() if name == "Store.make"} == {classmethod}
    assert "Special.call" not in after
    assert "Store.inherited" not in after
    if order.startswith("import"):
        assert after == before


def test_nothing_is_patched_by_an_import_after_the_undoing(bench: Bench) -> None:
    """A hook that still waits for the module does nothing once the agent was taken away."""
    bench.patch().undo()
    shop = importlib.import_module("shop")

    assert not wrappers(raw_values(shop))


@pytest.mark.parametrize("order", list(itertools.permutations(["import", "patch", "patch again"])))
def test_each_call_is_observed_whatever_was_first(bench: Bench, order: tuple[str, ...]) -> None:
    """Import before or after patching: each kind of callable gives one span, also through a second agent's wrapper."""
    for step in order:
        if step == "import":
            importlib.import_module("shop")
        elif step == "patch":
            bench.patch()
    shop = sys.modules["shop"]
    store = shop.Store()

    assert store.call() == "hi"
    assert shop.Special().call() == "hi"
    assert asyncio.run(store.call_async()) == "hi"
    assert shop.Store.build() == store.build("hi") == "hi"
    assert shop.Special.make() == (shop.Special, "hi")
    assert store.inherited() == "inherited"
    assert shop.open_store() == "hi"
    expected = ["call", "call", "call", "build", "build", "make", "inherited", "open"]
    assert bench.names() == [f"{operation} shop" for operation in expected]


def test_what_does_not_exist_is_left_out_quietly(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A target that this release of a store does not have is skipped without a warning."""
    with caplog.at_level(logging.INFO):
        importlib.import_module("shop")
        bench.patch()

    assert not caplog.records


def test_somebody_elses_wrapper_stays(bench: Bench) -> None:
    """Where somebody wrapped us since, theirs is kept, ours passes through, and a new agent gives one span."""
    shop = importlib.import_module("shop")
    patcher = bench.patch()
    seen: list[str] = []

    @wrapt.decorator
    def theirs(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        seen.append("theirs")
        return wrapped(*args, **kwargs)

    shop.Store.call = their_wrapper = theirs(vars(shop.Store)["call"])
    patcher.undo()
    assert vars(shop.Store)["call"] is their_wrapper
    assert shop.Store().call() == "hi"
    assert (seen, bench.names()) == (["theirs"], [])

    second = bench.patch()
    assert shop.Store().call() == "hi"
    assert (seen, bench.names()) == (["theirs"] * 2, ["call shop"])
    second.undo()
    assert vars(shop.Store)["call"] is their_wrapper


def test_a_held_callable_passes_through(bench: Bench) -> None:
    """What an application took hold of while the agent was there works on, and records nothing."""
    shop = importlib.import_module("shop")
    patcher = bench.patch()
    held = [shop.Store().call, shop.Store.build, shop.Special.make, shop.open_store]
    patcher.undo()

    assert [call("x") for call in held] == ["x", "x", (shop.Special, "x"), "x"]
    assert bench.names() == []


def test_observers_that_fail_do_not_harm_the_call(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adapter that cannot read calls or results costs one warning each; the application gets its results."""
    monkeypatch.setattr(notices, "_said", set())
    shop = importlib.import_module("shop")
    bench.patch()

    for _ in range(2):
        assert shop.Store().call("unreadable") == "unreadable"
        assert shop.Store().call("surprising") == "surprising"
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert shop.Store().call("next") == "next"
    spans = bench.spans()
    assert spans[-1].parent is None


@pytest.mark.parametrize(
    ("error", "error_type"),
    [
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (SystemExit(3), "SystemExit"),
        (ValueError("no"), "ValueError"),
        (TimeoutError("late"), "timeout"),
        (asyncio.TimeoutError(), "timeout"),
        (asyncio.CancelledError(), "cancelled"),
        (GeneratorExit(), "cancelled"),
    ],
    ids=repr,
)
def test_a_span_ends_with_whatever_is_raised(bench: Bench, error: BaseException, error_type: str) -> None:
    """Spans end on `BaseException` too; deadline and cancellation have names of their own."""
    shop = importlib.import_module("shop")
    bench.patch()
    with pytest.raises(type(error)) as raised:
        shop.Store().call(error)

    assert raised.value is error
    (span,) = bench.spans()
    assert (span.kind, span.attributes and span.attributes["error.type"]) == (SpanKind.CLIENT, error_type)
    assert not span.status.is_ok


def test_a_coroutine_is_observed_from_its_first_step_to_its_end(bench: Bench) -> None:
    """A coroutine function stays one; what it waits for is in the span, and so is what cancels it."""
    shop = importlib.import_module("shop")
    bench.patch()

    async def cancel() -> None:
        task = asyncio.ensure_future(shop.Store().call_async(asyncio.CancelledError()))
        with pytest.raises(asyncio.CancelledError):
            await task

    assert inspect.iscoroutinefunction(shop.Store.call_async)
    asyncio.run(cancel())
    (span,) = bench.spans()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "cancelled"


def test_bad_arguments_are_refused_when_they_would_have_been(bench: Bench) -> None:
    """A coroutine function refuses bad arguments when it is called, not when it is awaited."""
    shop = importlib.import_module("shop")
    bench.patch()

    with pytest.raises(TypeError):
        shop.Store().call_async(1, 2, 3)


def test_a_coroutine_that_is_closed_elsewhere_leaves_no_context_behind(bench: Bench) -> None:
    """A suspended coroutine that is closed from another context ends its span and disturbs nobody's context."""
    shop = importlib.import_module("shop")
    bench.patch()
    coroutine = shop.Store().wait()
    contextvars.copy_context().run(coroutine.send, None)

    with bench.tracer_provider.get_tracer("application").start_as_current_span("caller") as caller:
        coroutine.close()
        assert trace.get_current_span() is caller
    assert trace.get_current_span() is trace.INVALID_SPAN
    closed, _ = bench.spans()
    assert closed.name == "wait shop"
    assert closed.attributes is not None
    assert closed.attributes["error.type"] == "cancelled"


def test_a_coroutine_that_is_closed_before_its_first_step_is_not_reported(
    bench: Bench, recwarn: pytest.WarningsRecorder
) -> None:
    """Whoever gives a call up at once hears no more of it than without the agent."""
    shop = importlib.import_module("shop")
    bench.patch()
    coroutine = shop.Store().call_async("x")
    assert coroutine.__qualname__ == "Store.call_async"
    coroutine.close()
    gc.collect()
    assert [str(warning.message) for warning in recwarn] == []
    assert bench.names() == []


def test_what_a_loop_leaves_behind_is_not_under_way_for_ever(bench: Bench) -> None:
    """A future that nobody holds any more is ended by the next call, as unfinished, and counted no longer."""
    shop = importlib.import_module("shop")
    bench.patch()

    async def leave() -> None:
        for _ in range(5):
            shop.Store().promise()

    asyncio.run(leave())
    gc.collect()
    shop.Store().call()
    left = [span for span in bench.spans() if span.name == "promise shop"]
    assert [(span.attributes or {})["error.type"] for span in left] == ["storescope.unfinished"] * 5
    assert all("its event loop had ended" in str(span.status.description) for span in left)
