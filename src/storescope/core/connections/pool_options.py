"""What a pool of connections is told when it is made, checked."""

from __future__ import annotations

from dataclasses import dataclass

from storescope.core import checks


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """Sizes in connections, times in seconds; infinity switches a time off."""

    max_idle_time: float
    max_lifetime: float
    max_waiting: int
    validate_after: float
    name: str

    def __post_init__(self) -> None:
        checks.positive("max_idle_time", self.max_idle_time)
        checks.positive("max_lifetime", self.max_lifetime)
        checks.whole("max_waiting", self.max_waiting, 0)
        checks.positive("validate_after", self.validate_after)
        if not isinstance(self.name, str):
            raise TypeError(f"name must be a text, not {self.name!r}")


def check_sizes(min_size: int, max_size: int) -> None:
    """Refuse sizes that are none, or of which the smaller is the larger."""
    checks.whole("min_size", min_size, 0)
    checks.whole("max_size", max_size)
    if min_size > max_size:
        raise ValueError(f"min_size must be at most max_size, which is {max_size}, not {min_size}")
