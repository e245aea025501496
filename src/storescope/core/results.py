"""Results of tools, as a cache needs them: told from errors, copied, turned into plain values and back."""

from __future__ import annotations

import copy
from typing import Any, Final, Protocol

_LEAVES: Final = frozenset({str, int, float, bool, bytes, type(None)})


class Results(Protocol):
    """What a store says of its own results. An adapted store has these methods; others are read by `PlainResults`."""

    def result_error(self, result: Any) -> Exception | None:
        """Return the error that a result is marked with; None where the tool succeeded."""

    def copy_result(self, result: Any) -> Any:
        """Return a copy that shares nothing that can change."""

    def dump_result(self, result: Any) -> Any:
        """Return the plain value from which `load_result` makes an equal result of the same type.

        Raises TypeError where there is none.
        """

    def load_result(self, plain: Any) -> Any:
        """Return the result that a plain value was made of."""


class PlainResults:
    """Results of a store that says nothing of them: never errors, plain where they are made of JSON and bytes."""

    def result_error(self, result: Any) -> Exception | None:
        """Return None: a store that fails raises."""
        return None

    def copy_result(self, result: Any) -> Any:
        """Return a deep copy."""
        return copy.deepcopy(result)

    def dump_result(self, result: Any) -> Any:
        """Return the result itself, if nothing in it would come back as another type; else raise TypeError."""
        check_plain(result)
        return result

    def load_result(self, plain: Any) -> Any:
        """Return the plain value: it was the result."""
        return plain


def check_plain(value: Any) -> None:
    """Raise TypeError unless a value is made of dicts with text as names, lists and single values only."""
    values: list[Any] = [value]
    for each in values:  # grows while it is walked
        kind = type(each)
        if kind is dict:
            if not all(type(name) is str for name in each):
                raise TypeError("a name that is no text does not come back as it was")
            values += each.values()
        elif kind is list:
            values += each
        elif kind not in _LEAVES:
            raise TypeError(f"a {kind.__qualname__} does not come back as it was")


def results_of(store: object, otherwise: Results | None = None) -> Results:
    """Return what a store says of its results, and `otherwise`, or `PlainResults`, for what it does not say."""
    results = PlainResults() if otherwise is None else otherwise
    for name in ("result_error", "copy_result", "dump_result", "load_result"):
        if hasattr(store, name):
            setattr(results, name, getattr(store, name))
    return results
