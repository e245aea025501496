"""How large a payload is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storescope.core.payloads.payload import text_size

PAYLOADS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


def expected(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(expected(key) + expected(item) for key, item in value.items())
    return sum(map(expected, value)) if isinstance(value, list) else 0


@given(PAYLOADS)
def test_it_is_the_sum_of_all_text_and_data(value: Any) -> None:
    """Keys, strings and bytes count with their UTF-8 length; numbers and brackets count as nothing."""
    assert text_size(value) == expected(value)


@pytest.mark.parametrize(
    ("text", "size"), [("", 0), ("abc", 3), ("é", 2), ("世界", 6), ("🙂", 4), ("\ud800", 3)]
)
def test_text_counts_in_utf8(text: str, size: int) -> None:
    """A character counts with as many bytes as it takes on the wire, a lone surrogate too."""
    assert text_size(text) == size


def test_a_json_text_is_never_smaller() -> None:
    """The size is a lower bound of what the payload takes as JSON."""
    payload = {"path": "/tmp/é", "lines": ["a", "b"], "limit": 10}
    size = text_size(payload)

    assert size is not None
    assert size <= len(json.dumps(payload, ensure_ascii=False).encode())


def test_a_payload_of_too_many_parts_is_not_measured() -> None:
    """Above the bound nothing is said rather than something wrong."""
    assert text_size(["x"] * 20, max_parts=10) is None
    assert text_size(["x"] * 9, max_parts=10) == 9


def test_a_payload_that_contains_itself_ends() -> None:
    """A cycle is a payload of too many parts."""
    loop: list[Any] = []
    loop.append(loop)

    assert text_size(loop) is None


def test_an_object_that_is_neither_counts_as_nothing() -> None:
    """Values that are no text, such as an application's own objects, are not looked into."""
    assert text_size({"key": object()}) == 3
