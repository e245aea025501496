"""How much was seen, for the line that the program ends with."""

from __future__ import annotations

import itertools
from typing import Final

from storescope.semconv import ERROR_TYPE
from storescope.stores import Attributes


class Tally:
    """How many operations ended, and how many of them in error: exact, whichever threads they ran in."""

    def __init__(self) -> None:
        self._operations = itertools.count()
        self._errors = itertools.count()
        self._reads = 0

    def add(self, recorded: Attributes) -> None:
        """Count an operation, by the attributes that its duration was recorded with."""
        next(self._operations)
        if ERROR_TYPE in recorded:
            next(self._errors)

    def read(self) -> tuple[int, int]:
        """Return the operations and the errors so far."""
        counts = next(self._operations) - self._reads, next(self._errors) - self._reads
        self._reads += 1
        return counts


tally: Final = Tally()
