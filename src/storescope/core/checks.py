"""Arguments, checked once at the edge: each error names the argument, what it must be, and its value."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any


def whole(name: str, value: object, least: int = 1) -> int:
    """Return an integer that is `least` or more; bool is none."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be {least} or more, not {value!r}")
    return value


def number(name: str, value: object, least: float = 0.0, most: float = math.inf) -> float:
    """Return a number from `least` to `most`, both allowed; NaN is none."""
    wanted = f"{least:g} or more" if most == math.inf else f"from {least:g} to {most:g}"
    checked = _as_float(name, value, wanted)
    if not least <= checked <= most:
        raise ValueError(f"{name} must be {wanted}, not {value!r}")
    return checked


def positive(name: str, value: object) -> float:
    """Return a number above 0, infinity allowed; for durations in seconds and for rates."""
    checked = _as_float(name, value, "above 0")
    if not checked > 0:
        raise ValueError(f"{name} must be above 0, not {value!r}")
    return checked


def _as_float(name: str, value: object, wanted: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {value!r}")
    try:
        return float(value)
    except OverflowError:
        bits = int(value).bit_length()
        raise ValueError(f"{name} must be {wanted}, and is too large: an integer of {bits} bits") from None


def finite(name: str, value: object) -> float:
    """Return a number above 0 that is not infinite."""
    checked = positive(name, value)
    if checked == math.inf:
        raise ValueError(f"{name} must be finite, not {value!r}")
    return checked


def optional(check: Callable[..., Any], name: str, value: object, *bounds: float) -> Any:
    """Return None for None, else what `check` returns."""
    return None if value is None else check(name, value, *bounds)


def function(name: str, value: object) -> Any:
    """Return what can be called."""
    if not callable(value):
        raise TypeError(f"{name} must be callable, not {value!r}")
    return value


def one_of(name: str, value: object, choices: tuple[str, ...]) -> str:
    """Return a text that is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")
    return str(value)


def text(name: str, value: object) -> str:
    """Return a text that is not empty."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a text, not {value!r}")
    if not value:
        raise ValueError(f"{name} must not be empty")
    return value
