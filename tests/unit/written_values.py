"""Values that have a written form, for the property tests of keys and of the codec."""

from __future__ import annotations

from datetime import timezone
from typing import Any

from hypothesis import strategies as st

#: Any text, lone surrogates too.
texts = st.text(st.characters(), max_size=8)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**80), 2**80),
    st.floats(),
    texts,
    st.binary(max_size=8),
    st.datetimes(timezones=st.just(timezone.utc)).map(lambda moment: moment.replace(fold=0)),
)
hashables = st.recursive(
    leaves,
    lambda parts: st.one_of(
        st.lists(parts, max_size=3).map(tuple),
        st.frozensets(parts, max_size=3),
    ),
    max_leaves=4,
)
values = st.recursive(
    hashables,
    lambda parts: st.one_of(
        st.lists(parts, max_size=4),
        st.lists(parts, max_size=4).map(tuple),
        st.dictionaries(hashables, parts, max_size=4),
        st.sets(hashables, max_size=4),
    ),
    max_leaves=12,
)


def identity(value: Any) -> Any:
    """Return what is equal for values that are equal and of the same types at every depth, in plain Python."""
    kind = type(value)
    if kind is dict:
        return kind, sorted(((identity(key), identity(part)) for key, part in value.items()), key=repr)
    if kind in (set, frozenset):
        return kind, sorted(map(identity, value), key=repr)
    if kind in (list, tuple):
        return kind, list(map(identity, value))
    return kind, repr(value)  # tells -0.0 from 0.0, and one NaN is as good as another
