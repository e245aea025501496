"""Keys that processes share."""

from __future__ import annotations

import enum
import os
import subprocess
import sys
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.written_values import identity, values

from storescope.core.payloads.keys import stable_key


@dataclass
class Point:
    x: int = 1


class Level(enum.IntEnum):
    LOW = 1


class Color(str, enum.Enum):
    RED = "red"


#: No two of them are one call.
DIFFERENT: list[Any] = [
    (),
    (None,),
    (float("nan"),),
    (1,),
    (1.0,),
    (True,),
    ("1",),
    (b"1",),
    (0,),
    (0.0,),
    (-0.0,),
    (False,),
    ("",),
    (b"",),
    ([],),
    ({},),
    ((),),
    (set(),),
    (frozenset(),),
    ("nan",),
    ("null",),
    (1, 2),
    ([1, 2],),
    ((1, 2),),
    ({1, 2},),
    ("ab", "c"),
    ("a", "bc"),
    ({"a": 1},),
    ({"a": 1.0},),
    ([["a", 1]],),
    ({1: "a"},),
    ({"1": "a"},),
    ({True: "a"},),
    ({1.0: "a"},),
    (2**64 - 1,),
    (2**64,),
    (-(2**64),),
    (str(2**64),),
    (hex(2**64),),
    ({"int": hex(2**64)},),
    (b"\xff",),
    ({"bytes": "/w=="},),
    ("\ud83d\ude00",),
    ("😀",),
    (("\ud83d\ude00",),),
    (("😀",),),
    (datetime(2024, 1, 1, tzinfo=timezone.utc),),
    ("2024-01-01T00:00:00+00:00",),
]


def test_different_calls_have_different_keys() -> None:
    """Values of different types or values never share a key, however alike their texts are."""
    assert len({stable_key(*parts) for parts in DIFFERENT}) == len(DIFFERENT)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": [1, {"c": 2, "d": 3}]}, {"b": [1, {"d": 3, "c": 2}], "a": 1}),
        ({1: "a", "b": 2}, {"b": 2, 1: "a"}),
        ({"a": (1,), "b": 2**70}, {"b": 2**70, "a": (1,)}),
        ({"x", "y", "z"}, {"z", "y", "x"}),
        (float("nan"), -float("nan")),
        (Level.LOW, 1),
        (Color.RED, "red"),
        (bytearray(b"x"), b"x"),
        (OrderedDict(a=1), {"a": 1}),
        (
            datetime(2024, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))),
            datetime(2024, 1, 1, tzinfo=timezone.utc),
        ),
    ],
    ids=repr,
)
def test_equal_calls_have_equal_keys(one: object, other: object) -> None:
    """The order of a dict, the bits of NaN and the class of what equals a plain value do not matter."""
    assert stable_key("tool", one) == stable_key("tool", other)
    assert stable_key((one,)) == stable_key((other,))


@settings(deadline=None, max_examples=100)
@given(values, values)
def test_keys_are_equal_where_calls_are(one: Any, other: Any) -> None:
    """Two values have one key if, and only if, they are equal and of the same types at every depth."""
    assert (stable_key(one) == stable_key(other)) == (identity(one) == identity(other))


@settings(deadline=None, max_examples=50)
@given(values, st.randoms(use_true_random=False))
def test_the_order_of_a_dict_does_not_matter(value: Any, random: Any) -> None:
    """A value whose dicts and sets were filled in another order has the same key."""

    def shuffled(part: Any) -> Any:
        if isinstance(part, dict):
            pairs = [(key, shuffled(item)) for key, item in part.items()]
            random.shuffle(pairs)
            return dict(pairs)
        if isinstance(part, (list, tuple)):
            return type(part)(map(shuffled, part))
        if isinstance(part, (set, frozenset)):
            return type(part)(random.sample(list(part), len(part)))
        return part

    assert stable_key(value) == stable_key(shuffled(value))


KNOWN: dict[str, str] = {
    "('files', 'read_file', {'path': '/a', 'lines': 3})": "b165db6e06267b1a8f92e1fcd0c35c01",
    "(2**70, ('x',), float('nan'))": "3f3c1c8d2f09d859f7db31df84b57cd8",
    "({'b', 'a', 'c'}, {2: b'x', 'y': frozenset({'p', 'q', 'r'})})": "31a06280938707507bede6b9b68539a7",
}


@pytest.mark.parametrize("seed", ["0", "1", "4711"])
def test_keys_are_the_same_in_every_process_and_release(seed: str) -> None:
    """Keys depend neither on the seed of hashes, nor on this release of Python, msgspec or storescope."""
    program = f"""
from storescope.core.payloads.keys import stable_key
for parts in {list(KNOWN)!r}:
    print(stable_key(*eval(parts)).hex())
"""
    finished = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=Path(__file__).parent,
    )
    assert finished.stdout.split() == list(KNOWN.values())


@pytest.mark.parametrize(
    "value",
    [
        object(),
        Point(),
        Decimal(1),
        UUID(int=1),
        datetime(2024, 1, 1, tzinfo=timezone.utc).replace(tzinfo=None),
        range(3),
        len,
        Point,
        {"a": [Point()]},
        (object(),),
        {(Decimal(1),): 2**70},
    ],
    ids=repr,
)
def test_what_has_no_written_form_is_refused(value: object) -> None:
    """Objects cannot be keyed: the error names their type, and says what can be."""
    with pytest.raises(TypeError, match=r"\w+\.\w+ has no written form: only None, bool"):
        stable_key("tool", value)


def test_what_contains_itself_is_refused() -> None:
    """A value that contains itself, or is nested without end, is an error and no crash."""
    endless: list[Any] = [2**70]
    endless += [endless, endless]
    deep: Any = []
    for _ in range(50_000):
        deep = [deep]
    for value in (endless, [endless], deep):
        with pytest.raises(ValueError, match="nested deeper than 100 levels, or contains itself"):
            stable_key(value)


def test_a_time_that_utc_does_not_have_is_refused() -> None:
    """The first hours of the first year, east of Greenwich, are an error that says so."""
    first = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    for value in (first, (first,)):
        with pytest.raises(ValueError, match=r"0001-01-01 00:00:00\+02:00 has no date in UTC"):
            stable_key(value)
