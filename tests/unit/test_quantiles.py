"""Quantiles in bounded memory, with the error that they state."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storescope.core.profiling.quantiles import Quantiles

durations = st.lists(st.floats(1e-9, 1e6), min_size=1, max_size=200)
parts = st.floats(0, 1)


def filled(values: list[float], **options: Any) -> Quantiles:
    sketch = Quantiles(**options)
    for value in values:
        sketch.add(value)
    return sketch


@given(durations, parts)
@settings(deadline=None, max_examples=60)
def test_a_quantile_is_within_the_stated_error(values: list[float], q: float) -> None:
    """Any quantile is within one percent of the value that has this rank among all values."""
    exact = sorted(values)[math.floor(q * (len(values) - 1))]
    assert filled(values).quantile(q) == pytest.approx(exact, rel=0.01 + 1e-9)


@given(durations, durations, parts)
@settings(deadline=None, max_examples=40)
def test_merged_sketches_are_as_exact_as_one(some: list[float], others: list[float], q: float) -> None:
    """Two sketches merged tell what one tells that saw all values."""
    merged, whole = filled(some), filled(some + others)
    merged.merge(filled(others))
    assert merged.quantile(q) == whole.quantile(q)
    assert (merged.count, merged.minimum, merged.maximum) == (whole.count, whole.minimum, whole.maximum)
    assert merged.total == pytest.approx(whole.total)


def test_memory_is_bounded_and_high_quantiles_stay_exact() -> None:
    """With more magnitudes than buckets the lowest lose their precision and the highest keep it."""
    values = [1.05**exponent for exponent in range(400)]
    sketch = filled(values, max_buckets=50)
    assert sketch.buckets == 50
    assert sketch.quantile(0.99) == pytest.approx(values[395], rel=0.01)
    other = filled([1e-6, *values], max_buckets=50)
    sketch.merge(other)
    assert sketch.buckets == 50
    assert sketch.count == 801


def test_durations_do_not_fill_the_default() -> None:
    """A nanosecond and ten years fit in one sketch, whatever is between, without loss."""
    sketch = filled([1e-9 * 1.02**exponent for exponent in range(2040)])
    assert sketch.maximum > 10 * 365 * 86400
    assert sketch.quantile(0.0) == pytest.approx(1e-9, rel=0.01)


def test_zero_is_a_value() -> None:
    """What takes no time at all is counted as 0, and a clock that went back too."""
    sketch = filled([0.0, -1.0, 1e-12, 5.0])
    assert [sketch.quantile(q) for q in (0, 0.5)] == [0.0, 0.0]
    assert sketch.quantile(1) == pytest.approx(5.0, rel=0.01)
    assert (sketch.count, sketch.total, sketch.minimum) == (4, 5.0, 0.0)


def test_without_values_quantiles_are_zero() -> None:
    """A sketch that has seen nothing says 0, and shows that it is empty."""
    assert Quantiles().quantile(0.99) == 0.0
    assert repr(Quantiles()) == "<Quantiles of 0 values, 0 buckets, within 1.0%>"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_duration_is_refused(value: float) -> None:
    """NaN and infinity would spoil the sums: they are refused, and nothing is counted."""
    sketch = Quantiles()
    with pytest.raises(ValueError, match=f"value must be finite, not {value!r}"):
        sketch.add(value)
    assert sketch.count == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relative_error": 0}, "relative_error must be from 0.0001 to 0.5, not 0"),
        ({"relative_error": math.nan}, "relative_error must be from 0.0001 to 0.5, not nan"),
        ({"max_buckets": 1}, "max_buckets must be 2 or more, not 1"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    """An error names the argument and its value."""
    with pytest.raises(ValueError, match=message):
        Quantiles(**options)


def test_sketches_of_different_errors_do_not_merge() -> None:
    """Merging them would have no stated error."""
    with pytest.raises(ValueError, match=r"relative_error must be 0\.01, not 0\.02"):
        Quantiles().merge(Quantiles(relative_error=0.02))
    with pytest.raises(ValueError, match="q must be from 0 to 1, not 2"):
        Quantiles().quantile(2)
