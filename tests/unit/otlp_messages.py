"""Telemetry of every kind for the encoder's tests, and the comparison with the official messages."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource

RESOURCE = Resource({"service.name": "shop", "process.pid": 7}, schema_url="https://example.org/resource")
IDS = {"traceId", "spanId", "parentSpanId"}


def with_ids(value: Any, convert: Callable[[str], str]) -> Any:
    """Rewrite every id: OTLP/JSON has them in hex, where protobuf's own JSON has base64."""
    if isinstance(value, dict):
        return {k: convert(v) if k in IDS else with_ids(v, convert) for k, v in value.items()}
    if isinstance(value, list):
        return [with_ids(item, convert) for item in value]
    return value


def as_message(read: Any, kind: type[Message]) -> Any:
    """Parse OTLP/JSON into a message."""
    return ParseDict(with_ids(read, lambda text: base64.b64encode(bytes.fromhex(text)).decode()), kind())


def assert_same(text: str, official: Message) -> None:
    """Compare our text with the official message, once as a message and once as JSON."""
    ours = json.loads(text)
    message = as_message(ours, type(official))
    assert message.SerializeToString(deterministic=True) == official.SerializeToString(deterministic=True)
    theirs = MessageToDict(official, use_integers_for_enums=True)
    assert ours == with_ids(theirs, lambda text: base64.b64decode(text).hex())


texts = st.text(st.characters(exclude_categories=["Cs"]))
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
integers = st.integers(-(2**63), 2**63 - 1)
doubles = st.floats(allow_nan=False) | st.just(math.nan)
#: Values that every release of the SDK takes as they are.
plain = st.one_of(
    *(kind | st.lists(kind, max_size=4).map(tuple) for kind in (texts, st.booleans(), integers, doubles))
)
attribute_sets = st.dictionaries(names, plain, max_size=6)
#: What OTLP has a type for besides.
nested = st.recursive(
    st.one_of(texts, st.booleans(), integers, doubles, st.binary()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=8,
)
