"""Numbers and foreign text as people read them."""

from __future__ import annotations

import datetime
import re
from typing import Final

#: Control characters (a terminal obeys some), what reorders text, and halves of characters that cannot be printed.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SPACES: Final = re.compile(r"[ \t\r\n\u2028\u2029]+")

_SECOND: Final = 1_000_000_000
_SIZES: Final = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def plain(text: str, limit: int = 500) -> str:
    """Make foreign text safe to print on one line: no escape sequence, no line break, at most `limit` long."""
    text = _UNPRINTABLE.sub("\ufffd", _SPACES.sub(" ", text))
    return text if len(text) <= limit else text[: limit - 3] + "..."


def duration(nanoseconds: int) -> str:
    """Write a duration with three digits: `0.04 ms`, `13.2 ms`, `2.31 s`, `4 min 5 s`."""
    seconds = nanoseconds / _SECOND
    if seconds < 0.9995:
        return f"{_three_digits(seconds * 1000)} ms"
    if seconds < 120:
        return f"{_three_digits(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min"


def size(count: int | None) -> str:
    """Write a number of bytes with three digits, such as `1.20 kB`; `-` where it is not known."""
    if count is None:
        return "-"
    for unit, name in _SIZES:
        if count >= unit:
            return f"{_three_digits(count / unit)} {name}"
    return f"{count} B"


def moment(nanoseconds: int, form: str = "%d %b %Y %H:%M:%S") -> str:
    """Write a time of day with its date, in the machine's time zone: `23 Nov 2026 12:13:14`."""
    return _local(nanoseconds).strftime(form)


def plural(count: int, noun: str) -> str:
    """Write a number of things."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _three_digits(value: float) -> str:
    for limit, form in ((9.995, ".2f"), (99.95, ".1f")):
        if value < limit:
            return f"{value:{form}}"
    return f"{value:,.0f}"


def _local(nanoseconds: int) -> datetime.datetime:
    moment = datetime.datetime.fromtimestamp(nanoseconds / _SECOND, datetime.timezone.utc)
    try:
        return moment.astimezone()
    except (OSError, OverflowError):  # a year that the platform's time zones do not reach
        return moment
