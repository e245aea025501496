"""The digest that tells equal calls from different ones."""

from __future__ import annotations

import enum
import itertools
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from storescope.core.payloads.digest import MAX_BYTES, MAX_NODES, NoDigest, call_digest, canonical_arguments

KEY = b"k" * 32

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=12,
)

#: Arguments of which no two are the same call.
DIFFERENT: list[Any] = [
    None, True, False, 0, 1, -1, 0.0, -0.0, 1.0, 2**64, float(2**64), float("nan"), float("inf"), "", "0", "1", "1.0",
    "True", "true", "None", "null", "nan", "NaN", b"", b"1", b"null", "b''", "'1'", '"1"', "[1]", "(1,)", "[]",
    [], {}, [None], [[]], [{}], [1], ["1"], [1, 2], [2, 1], [[1], 2], [[1, 2]], [1, [2]], ["1, 2"], ["1", "2"],
    ["ab", "c"], ["a", "bc"], ["abc"], ["a', 'b"], {"a": 1}, {"a": "1"}, {"a": None}, {"b": 1}, {"a": 1, "b": 2},
    {"a": 2, "b": 1}, {"a": {"b": 1}}, {"a": [1]}, {"a": {}}, {"a": []}, {"a": ""}, [["a", 1]], ["a", 1], ["a"],
    {"a": {"b": {}}, "c": 1}, {"a": {"b": {}, "c": 1}}, [{"a": 1}, {"b": 2}], [{"a": 1, "b": 2}, {}], "é", "e\u0301",
    "\\xe9", "\ud83d\ude42", "🙂", "\x00", "\\x00", "a", "A",
]  # fmt: skip


def digest(arguments: object, service: str | None = "files", tool: str = "read", key: bytes = KEY) -> str:
    return call_digest(key, service, tool, canonical_arguments(arguments)[0])


def reason(arguments: object) -> str | None:
    """Return why there is no digest; None where there is one."""
    try:
        digest(arguments)
    except NoDigest as none:
        return none.reason
    return None


def shuffled(value: Any, order: random.Random) -> Any:
    """Return an equal value with its names in another order and its lists as tuples."""
    if isinstance(value, dict):
        names = list(value)
        order.shuffle(names)
        return {name: shuffled(value[name], order) for name in names}
    return tuple(shuffled(item, order) for item in value) if isinstance(value, list) else value


def json_text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


@given(JSON, st.randoms(use_true_random=False))
def test_order_and_python_type_do_not_count(arguments: Any, order: random.Random) -> None:
    """The same call has the same digest, whatever order its names came in and whether a list was a tuple."""
    assert digest(arguments) == digest(shuffled(arguments, order))


@given(JSON, JSON)
def test_digests_are_equal_where_the_json_is(one: Any, other: Any) -> None:
    """Two calls share a digest where their JSON is the same, and only there."""
    assert (digest(one) == digest(other)) == (json_text(one) == json_text(other))


@given(JSON)
def test_what_json_brings_back_is_the_same_call(arguments: Any) -> None:
    """A client that builds its arguments anew from JSON makes the same call."""
    assert digest(json.loads(json.dumps(arguments))) == digest(arguments)


def test_different_arguments_have_different_digests() -> None:
    """1, 1.0, "1" and True are four values, brackets in a text are text, and nothing runs together."""
    digests = [digest(arguments) for arguments in DIFFERENT]

    for (one, first), (other, second) in itertools.combinations(zip(DIFFERENT, digests, strict=True), 2):
        assert first != second, (one, other)


def test_service_tool_and_key_count() -> None:
    """The same arguments are another call with another tool or service, and nothing is comparable over keys."""
    digests = {
        digest({}), digest({}, service=None), digest({}, service="None"), digest({}, service=""),
        digest({}, "file", "sread"), digest({}, tool="write"), digest({}, key=b"l" * 32),
    }  # fmt: skip

    assert len(digests) == 7


@given(st.text(max_size=4), st.text(max_size=4), st.text(max_size=4), st.text(max_size=4))
def test_service_and_tool_do_not_run_together(service: str, tool: str, service2: str, tool2: str) -> None:
    """Where the one ends and the other begins is part of the call."""
    assume((service, tool) != (service2, tool2))
    assert digest(1, service, tool) != digest(1, service2, tool2)


def test_a_digest_is_32_hexadecimal_digits() -> None:
    """128 bits, without anything of the arguments to be read."""
    text = digest({"path": "/a/b.txt"})

    assert len(text) == 32
    assert set(text) <= set("0123456789abcdef")


def test_other_processes_make_the_same_digest() -> None:
    """Neither the seed of hashes nor anything else of a process is in it."""
    arguments = {"b": ["é", 1.5], "a": {"z": None, "y": True}}
    call = f"call_digest({KEY!r}, 'files', 'read', canonical_arguments({arguments!r})[0])"
    command = [sys.executable, "-c", f"from storescope.core.payloads.digest import *; print({call})"]
    for seed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == digest(arguments)


def test_digests_stay_the_same_over_releases() -> None:
    """Recordings of before and after an update can be compared."""
    assert (
        digest({"path": "/a/b.txt", "n": 3, "x": ["é🙂", None, 1.5, b"\x00"]})
        == "05204ca1700eb6723190f6256ca6e3e1"
    )


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("x" * MAX_BYTES, None),
        ("x" * (MAX_BYTES + 1), "size"),
        (b"x" * (MAX_BYTES + 1), "size"),
        ("é" * (MAX_BYTES // 2), None),
        ("é" * (MAX_BYTES // 2 + 1), "size"),
        ("\ud800" * (MAX_BYTES // 3 + 1), "size"),
        (["x" * 1000] * 66, "size"),
        ({"x" * (MAX_BYTES + 1): 1}, "size"),
        (2**2048 - 1, None),
        (-(2**2048), "size"),
        (10**100_000, "size"),
        ([1] * (MAX_NODES - 1), None),
        ([1] * MAX_NODES, "nodes"),
        ({str(n): n for n in range(MAX_NODES // 2)}, "nodes"),
        ([[[]] * 100] * 11, "nodes"),
        ({1: "x"}, "type"),
        ({"a": 1, None: 2}, "type"),
        ({"a": {1, 2}}, "type"),
        ([object()], "type"),
        ([1j], "type"),
        (enum.Enum("Colour", "RED"), "type"),
        (enum.IntEnum("Level", "LOW")(1), "type"),
    ],
    ids=lambda value: value if value in ("size", "nodes", "type") else type(value).__name__,
)  # fmt: skip
def test_what_has_no_digest_says_why(arguments: object, why: str | None) -> None:
    """Above 64 KB, above 1,000 names and values, and for what has no canonical form."""
    assert reason(arguments) == why


def test_arguments_that_contain_themselves_have_too_many_nodes() -> None:
    """The walk ends, and so does the one over a value that is nested as deep as no recursion goes."""
    loop: list[Any] = []
    loop.append(loop)
    circle: dict[str, Any] = {}
    circle["a"] = circle
    deep: Any = []
    for _ in range(MAX_NODES - 2):
        deep = [deep]

    assert [reason(loop), reason(circle), reason(deep), reason([deep, 1])] == [
        "nodes",
        "nodes",
        None,
        "nodes",
    ]


def test_no_code_of_an_object_runs() -> None:
    """One whose every method raises has no digest, and neither has a subclass that could say anything."""

    class Hostile:
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError(name)

        def __repr__(self) -> str:
            raise RuntimeError

        __str__ = __iter__ = __len__ = __bool__ = __lt__ = __repr__  # type: ignore[assignment]

    class Text(str):
        __slots__ = ()
        __repr__ = __lt__ = Hostile.__repr__  # type: ignore[assignment]

    class Hidden(dict[str, int]):
        __iter__ = __len__ = items = Hostile.__repr__  # type: ignore[assignment]

    for arguments in (
        Hostile(),
        [Hostile()],
        {"a": Hostile()},
        {Hostile(): 1},
        Text("a"),
        {Text("a"): 1},
        Hidden(a=1),
    ):
        assert reason(arguments) == "type"


@pytest.mark.parametrize(
    "make",
    [
        lambda: "x" * 50_000_000,
        lambda: "世" * 20_000_000,
        lambda: b"x" * 50_000_000,
        lambda: [1] * 5_000_000,
        lambda: dict.fromkeys(range(1_000_000)),
        lambda: 1 << 10**8,
    ],
    ids=["text", "wide", "data", "list", "dict", "number"],
)
def test_the_limits_are_looked_at_first(make: Callable[[], object]) -> None:
    """50 MB of arguments cost no more than a few do."""
    arguments = make()
    started = time.process_time()
    for _ in range(1000):
        assert reason(arguments) is not None

    assert time.process_time() - started < 0.5
