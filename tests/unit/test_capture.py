"""What may be recorded of arguments and results."""

from __future__ import annotations

import collections
import enum
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from secrets_corpus import HARMLESS, HARMLESS_PAYLOADS, NAMES, SECRETS, Secret, payloads, texts

from storescope.instrumentation import capture
from storescope.instrumentation.redaction import LOOK_AHEAD, MASK, Redactor
from storescope.settings import REDACT_EVERYTHING

LIMIT = 4096

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
ANYTHING = st.recursive(
    JSON | st.floats() | st.binary() | st.just(object()) | st.text(st.characters()) | st.complex_numbers(),
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.integers() | st.text(), inner)
    ),
    max_leaves=20,
)


def captured(payload: object, limit: int = LIMIT, pattern: re.Pattern[str] | None = None) -> str:
    return capture.captured(payload, limit, Redactor(pattern))


@pytest.mark.parametrize("payload", HARMLESS_PAYLOADS, ids=repr)
def test_a_payload_is_recorded_as_json(payload: Any) -> None:
    """What holds no secret can be read back as it was."""
    assert json.loads(captured(payload)) == payload


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_is_unchanged(text: str) -> None:
    """Words that only resemble the names of secrets are left as they are."""
    assert captured({"text": [text]}) == json.dumps({"text": [text]}, ensure_ascii=False)


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret.name)
def test_no_secret_of_the_corpus_is_left(secret: Secret) -> None:
    """By name, nested, in text and in JSON that is a text: a secret is masked, and the mask says so."""
    for payload in payloads(secret):
        text = captured(payload)
        assert MASK in text, payload
        assert not secret.leaks_into(text), payload


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret.name)
def test_no_cut_lets_a_part_of_a_secret_pass(secret: Secret) -> None:
    """At whatever limit, and wherever in a long payload, what the cut leaves of a secret is masked."""
    some = list(payloads(secret))[:: 23 if secret.has_form else 401]
    for payload in some:
        for limit in range(1, 200, 11):
            assert not secret.leaks_into(captured(payload, limit)), payload
        for padding in (*range(0, 64, 9), *range(LOOK_AHEAD - 60, LOOK_AHEAD + 120, 13)):
            assert not secret.leaks_into(captured(["x " * (padding // 2), payload], 64)), payload
            assert not secret.leaks_into(captured(["password=" + "y" * padding, payload], 64)), payload


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret.name)
def test_a_secret_behind_another_does_not_pass(secret: Secret) -> None:
    """Where a long secret before it shrinks to its mask, what is recorded reaches the end of what was looked at."""
    text = next(texts(secret))
    for padding in range(64 + LOOK_AHEAD - 160, 64 + LOOK_AHEAD + 20, 5):
        shown = captured({"text": f"password={'y' * padding} {text} {'z ' * 600}"}, 64)
        assert not secret.leaks_into(shown), padding


@pytest.mark.parametrize("name", NAMES)
def test_values_of_secret_names_are_masked_whole(name: str) -> None:
    """Text, number, list or dict: the value of a secret's name is not looked into."""
    for value in ("hunter2", 12345678, ["hunter2"], {"user": "bob"}, b"hunter2", object()):
        assert json.loads(captured({"a": [{name: value, "n": 1}]})) == {"a": [{name: MASK, "n": 1}]}


def test_switches_and_counts_are_no_secrets() -> None:
    """Nothing, a boolean and a number of tokens can be read though the name is a secret's."""
    payload = {"password": None, "auth": False, "max_tokens": 4096, "tokens": 1.5}

    assert json.loads(captured(payload)) == payload


def test_a_private_key_in_lines_is_masked_line_by_line() -> None:
    """A tool that returns a file as a list of lines gives none of a key away, and the lines behind it can be read."""
    label = "RSA PRIVATE" + " KEY"
    lines = ["first", f"-----BEGIN {label}-----", "MIIEhunter2", "hunter3=", f"-----END {label}-----", "last"]

    assert json.loads(captured({"lines": lines})) == {"lines": ["first", MASK, MASK, MASK, MASK, "last"]}


@pytest.mark.parametrize("limit", [1, 2, 7, 8, 9, 10, 20, 21, 22, 100])
def test_a_payload_is_cut_to_bytes_at_a_character(limit: int) -> None:
    """The limit counts bytes of UTF-8, and no character is cut into pieces."""
    whole = json.dumps({"a": "é世🙂" * 30}, ensure_ascii=False)
    text = captured({"a": "é世🙂" * 30}, limit)

    assert whole.startswith(text)
    assert limit - 4 < len(text.encode()) <= limit


@given(ANYTHING, st.integers(1, 200))
def test_anything_is_captured_within_the_limit(payload: object, limit: int) -> None:
    """Nothing raises, and the text can be written as UTF-8 and is no longer than asked for."""
    assert len(captured(payload, limit).encode()) <= limit


@given(JSON)
def test_what_is_not_cut_is_valid_json(payload: object) -> None:
    """Masks and all, it can be parsed."""
    json.loads(captured(payload, 1_000_000))


def test_what_json_does_not_have_is_named_by_its_type() -> None:
    """Objects, numbers that are none, and data, of which only the size is told."""
    payload = [
        Path("/a"),
        {1, 2},
        float("nan"),
        float("-inf"),
        b"abc",
        bytearray(5),
        10**5000,
        {(1,): 2, 3: None},
    ]
    path = type(Path()).__name__

    assert json.loads(captured(payload)) == [
        f"<{path}>", "<set>", "<nan>", "<-inf>", "<3 bytes>", "<5 bytes>", "<int>", {"<tuple>": 2, "3": None}
    ]  # fmt: skip


def test_subclasses_of_json_types_are_read_as_what_they_are() -> None:
    """Enumerations, ordered and named collections are no unknown objects."""

    class Colour(str, enum.Enum):
        RED = "red"

    class Level(enum.IntEnum):
        LOW = 1

    point = collections.namedtuple("point", "x y")  # noqa: PYI024
    payload = [
        Colour.RED,
        Level.LOW,
        point(1, 2),
        collections.OrderedDict(a=1),
        collections.defaultdict(list, b=2),
    ]

    assert json.loads(captured(payload)) == ["red", 1, [1, 2], {"a": 1}, {"b": 2}]


def test_no_code_of_an_object_runs() -> None:
    """One whose every method raises is named by its type, as a value, as an item and as a key."""

    class Hostile:
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError(name)

        def __repr__(self) -> str:
            raise RuntimeError

        __str__ = __iter__ = __len__ = __bool__ = __format__ = __repr__  # type: ignore[assignment]

    class Hidden(dict[str, int]):
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError(name)

        def __iter__(self) -> Any:
            raise RuntimeError

        __repr__ = __len__ = __bool__ = items = __iter__  # type: ignore[assignment]

    payload = {"a": [Hostile()], Hostile(): Hostile(), "b": Hidden(x=1)}

    assert json.loads(captured(payload)) == {"a": ["<Hostile>"], "<Hostile>": "<Hostile>", "b": {"x": 1}}


def test_a_payload_that_contains_itself_ends() -> None:
    """Below some depth only the type is named, so that the text stays valid."""
    loop: list[Any] = [1]
    loop.append(loop)
    circle: dict[str, Any] = {}
    circle["a"] = [circle]
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    for payload, innermost in ((loop, '"<list>"'), (circle, '"<dict>"'), (deep, '"<list>"')):
        text = captured(payload)
        assert innermost in text
        json.loads(text)


def test_a_lone_surrogate_is_escaped() -> None:
    """It has no UTF-8; as an escape it is valid JSON for the same text."""
    assert json.loads(captured({"a": "x\ud800é"})) == {"a": "x\ud800é"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"text": "x" * 50_000_000},
        lambda: {"text": "é世" * 10_000_000},
        lambda: {"x" * 10_000_000: 1},
        lambda: {"password": "x" * 50_000_000},
        lambda: {"data": b"x" * 50_000_000},
        lambda: ["password=x, "] * 1_000_000,
        lambda: [[]] * 1_000_000,
        lambda: dict.fromkeys(range(1_000_000)),
        lambda: "token: " * 2_000_000,
        lambda: "-----BEGIN PRIVATE" + " KEY-----" + "x" * 10_000_000,
    ],
    ids=["text", "wide", "name", "secret", "data", "texts", "lists", "dict", "names", "key"],
)
def test_a_huge_payload_costs_no_more_than_its_first_piece(make: Callable[[], object]) -> None:
    """50 MB are neither serialized nor redacted: the time goes with the limit."""
    payload = make()
    started = time.process_time()
    for _ in range(10):
        captured(payload)

    assert time.process_time() - started < 1.0


def test_a_pattern_of_the_users_finds_text_numbers_and_pairs() -> None:
    """It is applied to every text, and to the JSON in which they stand with their names."""
    assert captured({"a": 'say "12-34"'}, pattern=re.compile(r'"\d\d-\d\d"')) == '{"a": "say [redacted]"}'
    assert captured({"card": 4111111111111111}, pattern=re.compile(r"\d{16}")) == '{"card": [redacted]}'
    assert (
        captured({"plz": "12", "n": 1}, pattern=re.compile(r'(?<="plz": )"\d+"'))
        == '{"plz": [redacted], "n": 1}'
    )


def test_a_match_of_the_users_pattern_at_the_cut_is_masked() -> None:
    """What the cut leaves of it is not recorded."""
    for limit in range(1, 40):
        assert "41" not in captured({"text": "x" * 12, "n": 4141414141414141}, limit, re.compile(r"\d{16}"))
        assert "41" not in captured({"text": "x" * 12 + "4141414141414141"}, limit, re.compile(r"\d{16}"))
        assert "41" not in captured({"card": "4141-4141", "n": 1}, limit, re.compile(r'"card": "4141-4141"'))


def test_a_pattern_that_matches_everything_leaves_nothing() -> None:
    """It is what stands in for a pattern that cannot be read."""
    assert captured({"a": ["b", 1]}, pattern=REDACT_EVERYTHING) == MASK
