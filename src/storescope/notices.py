"""What storescope has to say is heard, and said once.

mcpstore's `setup_store()` removes the root logger's handlers and raises its level, so that a warning of ours would
reach nobody: neither that metrics go to a file from now on, nor that telemetry is lost.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import Final

_log: Final = logging.getLogger("storescope")
_said: Final[set[tuple[str, str]]] = set()


class _WhereNobodyListens(logging.Handler):
    """Writes to stderr what no handler of the application's is going to show."""

    def emit(self, record: logging.LogRecord) -> None:
        handlers = logging.getLogger().handlers
        if any(handler.level <= record.levelno and not is_telemetry(handler) for handler in handlers):
            return
        text = self.format(record)
        try:
            print(
                text if text.startswith("storescope") else f"storescope: {text}", file=sys.stderr, flush=True
            )
        except (OSError, ValueError, AttributeError):
            return  # stderr is closed, broken or missing


def is_telemetry(handler: logging.Handler) -> bool:
    """Tell whether a log handler is OpenTelemetry's: it exports records, and nobody reads there what we say."""
    return any(kind.__module__.partition(".")[0] == "opentelemetry" for kind in type(handler).__mro__)


def make_heard() -> None:
    """Give storescope's own logger a level and a handler that no store takes away; once in a process."""
    if not any(isinstance(handler, _WhereNobodyListens) for handler in _log.handlers):
        _log.addHandler(_WhereNobodyListens())
        if _log.level == logging.NOTSET:
            _log.setLevel(logging.WARNING)


def warn_once(message: str, subject: str) -> None:
    """Log the exception that is being handled, as a warning the first time and for debugging from then on.

    `message` has one `%s`, which `subject` takes.
    """
    level = logging.DEBUG if (message, subject) in _said else logging.WARNING
    _said.add((message, subject))
    error = sys.exc_info()[1]
    if error is None:
        return
    behind, error.__context__ = (
        error.__context__,
        None,
    )  # the application's: its text may hold what is not to be told
    with contextlib.suppress(Exception):  # a log handler may fail; what the application called must not
        _log.log(level, message, subject, exc_info=error)
    error.__context__ = behind
