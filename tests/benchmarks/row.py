"""One line of the benchmark table: what ours costs beside the floor that it is measured against."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A measurement of ours and one of the floor, from the same run; `target`, if any, bounds their ratio."""

    name: str
    ours: float
    floor: float
    target: float | None
    unit: str = "us"

    @property
    def ratio(self) -> float:
        """How many times the floor ours costs."""
        return self.ours / self.floor
