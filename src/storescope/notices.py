"""What storescope has to say is heard, and said once.

mcpstore's `setup_store()` removes the root logger's handlers and raises its level, so that a warning of ours would
reach nobody: neither that metrics go to a file from now on, nor that telemetry is lost.
"""

from __future__ import annotations

import logging
import sys
from typing import Final

_log: Final = logging.getLogger("storescope")
_said: Final[set[tuple[str, str]]] = set()


class _WhereNobodyListens(logging.Handler):
    """Writes to stderr what no handler of the application's is going to show."""

    def emit(self, record: logging.LogRecord) -> None:
        if any(handler.level <= record.levelno for handler in logging.getLogger().handlers):
            return
        text = self.format(record)
        try:
            print(
                text if text.startswith("storescope") else f"storescope: {text}", file=sys.stderr, flush=True
            )
        except (OSError, ValueError, AttributeError):
            return  # stderr is closed, broken or missing


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
    _log.log(level, message, subject, exc_info=True)
