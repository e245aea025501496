"""Quantiles of a stream in bounded memory, with a bounded relative error: a DDSketch."""

from __future__ import annotations

from math import ceil, inf, log

from storescope.core import checks

#: Values below are counted as 0: nothing that is measured here is shorter than a nanosecond.
_SMALLEST = 1e-9


class Quantiles:
    """Count values of 0 and more in buckets whose width grows with the value, and tell any quantile of them.

    A quantile is off by at most `relative_error` of its value. At most `max_buckets` buckets are kept; were there
    more, the two lowest become one, so that low quantiles lose their precision and high ones never do. With the
    defaults that does not happen between a nanosecond and ten years. Sketches of the same error can be merged, and
    the merged one is as exact as if it had seen everything. Not locked: its owner has a lock already.

    After C. Masson, J. E. Rim, H. K. Lee: DDSketch: A Fast and Fully-Mergeable Quantile Sketch with Relative-Error
    Guarantees. PVLDB 12(12), 2019.
    """

    __slots__ = (
        "_buckets",
        "_per_log",
        "_zeros",
        "count",
        "max_buckets",
        "maximum",
        "minimum",
        "relative_error",
        "total",
    )

    def __init__(self, *, relative_error: float = 0.01, max_buckets: int = 2048) -> None:
        self.relative_error = checks.number("relative_error", relative_error, 1e-4, 0.5)
        self.max_buckets = checks.whole("max_buckets", max_buckets, 2)
        self._per_log = 1 / log((1 + relative_error) / (1 - relative_error))
        self._buckets: dict[int, int] = {}
        self._zeros = 0
        self.count = 0
        self.total = 0.0
        self.minimum = inf
        self.maximum = 0.0

    def add(self, value: float) -> None:
        """Count one value; what is below a nanosecond counts as 0."""
        if not value < inf:
            raise ValueError(f"value must be finite, not {value!r}")
        if value < _SMALLEST:
            value = 0.0
            self._zeros += 1
        else:
            index = ceil(log(value) * self._per_log)
            self._buckets[index] = self._buckets.get(index, 0) + 1
            if len(self._buckets) > self.max_buckets:
                self._collapse()
        self.count += 1
        self.total += value
        if value < self.minimum:
            self.minimum = value
        if value > self.maximum:
            self.maximum = value

    def merge(self, other: Quantiles) -> None:
        """Count what another sketch of the same relative error has counted."""
        if other.relative_error != self.relative_error:
            raise ValueError(f"relative_error must be {self.relative_error!r}, not {other.relative_error!r}")
        for index, count in other._buckets.items():
            self._buckets[index] = self._buckets.get(index, 0) + count
        while len(self._buckets) > self.max_buckets:
            self._collapse()
        self._zeros += other._zeros
        self.count += other.count
        self.total += other.total
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)

    def quantile(self, q: float) -> float:
        """Return the value below which the part `q` (0 to 1) of all values lies; 0 where there is none."""
        checks.number("q", q, 0, 1)
        if not self.count:
            return 0.0
        rank = q * (self.count - 1)
        seen = self._zeros
        if seen > rank:
            return 0.0
        for index in sorted(self._buckets):
            seen += self._buckets[index]
            if seen > rank:
                return min(max(self._middle(index), self.minimum), self.maximum)
        return self.maximum

    def _middle(self, index: int) -> float:
        """Return the value that is as far from the bucket's lower end as from its upper, in relation to either."""
        error = self.relative_error
        upper: float = ((1 + error) / (1 - error)) ** index
        return upper * (1 - error)

    def _collapse(self) -> None:
        lowest, second = sorted(self._buckets)[:2]
        self._buckets[second] += self._buckets.pop(lowest)

    @property
    def buckets(self) -> int:
        """How many buckets are in use."""
        return len(self._buckets)

    def __repr__(self) -> str:
        return f"<Quantiles of {self.count} values, {self.buckets} buckets, within {self.relative_error:.1%}>"
