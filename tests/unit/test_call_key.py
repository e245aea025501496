"""Keys of calls of Python functions: one for each call, however it is spelt."""

from __future__ import annotations

import array
import collections
import copy
import dataclasses
import datetime
import decimal
import enum
import functools
import gc
import inspect
import random
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storescope.core.caching.call_key import compile_key, freeze, identity


class Colour(enum.IntEnum):
    RED = 1


class Point(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass
class Box:
    content: Any


@dataclasses.dataclass(frozen=True)
class Label:
    text: str


class Text(str):
    __slots__ = ()


#: Arguments of which no two are the same.
DIFFERENT: list[Any] = [
    None, True, False, 0, 1, -1, 0.0, -0.0, 1.0, 2**70, float(2**70), float("nan"), 1 + 0j, "", "1", "nan", "None",
    Text("1"), b"", b"1", bytearray(b"1"), bytearray(), decimal.Decimal(1), Colour.RED, [], (), {}, set(), frozenset(),
    [1], (1,), [1.0], (1.0,), (True,), [[1]], [(1,)], ([1],), [None], {1}, {1.0}, {True}, frozenset([1]), {"a": 1},
    {"a": 1.0}, {"a": True}, {"a": [1]}, {"a": (1,)}, {"a": {}}, {"b": 1}, {"a": 1, "b": 2}, {1: "a"}, {1.0: "a"},
    {True: "a"}, [("a", 1)], Point(1, 2), Point(1.0, 2), Point([1], 2), (1, 2), [1, 2], [2, 1], Box(1), Box(1.0),
    Box([1]), Label("a"), Label("b"),
    collections.OrderedDict(a=1), collections.defaultdict(int, a=1), collections.Counter(a=1), collections.deque([1]),
    collections.deque([1], 5), array.array("i", [1]), array.array("q", [1]), int, float, str, object(), object(), print,
    len, datetime.date(2026, 1, 1), datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc), range(1),
    slice(1), (int, 1), [int, 1], ("nan",),
]  # fmt: skip


def everything(a: Any, /, b: Any = 2, *args: Any, c: Any, d: Any = (), **kwargs: Any) -> None: ...


def key_of(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, ...]:
    return compile_key(function)("first")(*args, **kwargs)


def test_no_two_different_values_are_one() -> None:
    """Values are told apart by type and content, at every depth."""
    frozen = [freeze(value) for value in DIFFERENT]

    assert len(set(frozen)) == len(DIFFERENT)


@pytest.mark.parametrize("value", [value for value in DIFFERENT if type(value) is not object], ids=repr)
def test_a_copy_is_the_same_value(value: Any) -> None:
    """What equals a value in type and content has its key."""
    assert freeze(copy.deepcopy(value)) == freeze(value)
    assert hash(freeze(copy.deepcopy(value))) == hash(freeze(value))


def test_order_that_means_nothing_does_not_count() -> None:
    """Dicts and sets have no order, at any depth; nor do arguments by name."""
    assert freeze({"a": 1, "b": {"c": [1], "d": 2}}) == freeze({"b": {"d": 2, "c": [1]}, "a": 1})
    assert freeze(set(range(50))) == freeze(set(range(49, -1, -1)))
    assert key_of(everything, 1, c=1, x=1, y=2) == key_of(everything, 1, y=2, x=1, c=1)


@st.composite
def spellings(draw: st.DrawFn) -> tuple[list[tuple[tuple[Any, ...], dict[str, Any]]], inspect.BoundArguments]:
    """Draw arguments of `everything`, and several ways to write them."""
    value = st.sampled_from([0, 1, 2, (), "b", None])
    extra = draw(st.lists(value, max_size=2))
    a, b, c, d = (draw(value) for _ in range(4))
    more = draw(st.dictionaries(st.sampled_from(["a", "e", "first", "key", "type"]), value, max_size=2))
    named: dict[str, Any] = {"c": c, "d": d, **more}
    ways: list[tuple[tuple[Any, ...], dict[str, Any]]] = [((a, b, *extra), named)]
    if not extra:
        ways.append(((a,), {**named, "b": b}))
        if b == 2:
            ways.append(((a,), named))
    if d == ():
        ways += [(args, {name: kwargs[name] for name in kwargs if name != "d"}) for args, kwargs in ways]
    bound = inspect.signature(everything).bind(*ways[0][0], **named)
    return ways, bound


@settings(deadline=None, max_examples=60)
@given(one=spellings(), other=spellings())
def test_calls_have_one_key_if_they_are_bound_alike(one: Any, other: Any) -> None:
    """The key tells what `Signature.bind` tells: all spellings of a call, and no other, have its key."""
    key = compile_key(everything)("first")
    keys = {key(*args, **kwargs) for args, kwargs in one[0]}

    args, kwargs = other[0][0]
    assert len(keys) == 1
    assert (key(*args, **kwargs) in keys) == (one[1].arguments == other[1].arguments)


@pytest.mark.parametrize("call", [(), (1,), (1, 2, 3), ((), {"c": 1})])
def test_a_call_that_does_not_fit_has_no_key(call: Any) -> None:
    """The error is that of the function itself, in its name."""

    def function(a: int, *, c: int) -> None: ...

    with pytest.raises(TypeError) as expected:
        function(*call)
    with pytest.raises(TypeError) as raised:
        key_of(function, *call)
    assert str(raised.value) == str(expected.value)


def test_names_of_parameters_are_free() -> None:
    """Whatever a function calls its parameters, generated code has other names."""

    def function(_: Any, __: Any, type: Any, freeze: Any, plain: Any = 5, _first: Any = 6) -> None: ...  # noqa: A002

    assert key_of(function, 1, 2, 3, 4) == ("first", 1, 2, 3, 4, 5, 6)


def test_defaults_are_those_of_the_function() -> None:
    """A default is any object, and the key has it as if it were given."""
    marker = object()

    def function(a: Any = marker, b: Any = [1], c: Any = "x = 1") -> None: ...  # noqa: B006

    assert key_of(function) == key_of(function, marker, [1], "x = 1") == key_of(function, c="x = 1")


def test_a_wrapper_is_keyed_by_its_own_defaults() -> None:
    """What a function wraps may have other defaults than the calls that reach it."""

    def inner(a: int, b: int = 0) -> int:
        return a + b

    @functools.wraps(inner)
    def outer(a: int, b: int = 5) -> int:
        return inner(a, b)

    assert key_of(outer, 1) == key_of(outer, 1, 5) != key_of(outer, 1, 0)


@pytest.mark.parametrize("function", [functools.partial(everything, 1, c=3), dict, types.SimpleNamespace])
def test_any_callable_has_keys(function: Any) -> None:
    """Partial functions, functions written in C and classes are keyed, also where they tell no signature."""
    assert key_of(function, b=1) == key_of(function, b=1) != key_of(function, b=2)


def test_no_object_is_kept_alive() -> None:
    """An object that compares by identity is gone when its owner lets go of it, and no other has its key."""

    class Thing:
        def method(self) -> None: ...

    thing = Thing()
    alive = weakref.ref(thing)
    keys = {freeze(thing), freeze([thing]), key_of(Thing.method, thing)}
    assert keys == {freeze(thing), freeze([thing]), key_of(Thing.method, thing)}

    del thing
    gc.collect()
    assert alive() is None
    for _ in range(50):
        thing = Thing()  # some of them are where it was
        assert not keys & {freeze(thing), freeze([thing]), key_of(Thing.method, thing)}


@pytest.mark.parametrize("kind", [Box, Label])
def test_self_is_this_very_object(kind: Any) -> None:
    """Two equal instances are two, whether they can be hashed or not; as other arguments they are one."""

    def method(self: Any, other: Any) -> None: ...

    one, two = kind("a"), kind("a")
    assert key_of(method, one, 1) == key_of(method, one, 1) != key_of(method, two, 1)
    assert key_of(method, one, one) == key_of(method, one, two)


def test_an_instance_without_weak_references_is_compared_like_any_argument() -> None:
    """Slots without `__weakref__`: by identity, or by value where the class says so."""

    class Bare:
        __slots__ = ()

    one, two = Bare(), Bare()
    assert identity(one) == identity(one) != identity(two)
    assert identity(Point(1, 2)) == identity(Point(1, 2)) != identity(Point(1.0, 2))


def test_a_method_is_keyed_by_its_instance() -> None:
    """Bound methods, locks and functions are arguments like others."""
    lock = threading.Lock()
    for value in (lock, lock.acquire, Box(lock), [lock], random.random, lambda: 1):
        assert freeze(value) == freeze(value)
    assert freeze(Box(lock)) != freeze(Box(threading.Lock()))


def test_a_changed_object_is_another_value() -> None:
    """An object without a hash counts by what it holds at the time of the call."""
    box = Box([1])
    before = freeze(box)
    box.content.append(2)

    assert freeze(box) != before
    assert freeze(box) == freeze(Box([1, 2]))


def test_what_has_no_end_has_no_key() -> None:
    """A list that contains itself raises RecursionError, and a writable view of memory what copying it raises."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(RecursionError):
        freeze(endless)
    with pytest.raises(TypeError):
        freeze(memoryview(bytearray(1)))
