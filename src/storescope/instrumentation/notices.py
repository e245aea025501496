"""What goes wrong in the agent is said once: a store that it cannot read must not fill the application's log."""

from __future__ import annotations

import logging
from typing import Final

_log: Final = logging.getLogger("storescope")
_said: Final[set[tuple[str, str]]] = set()


def warn_once(message: str, subject: str) -> None:
    """Log the exception that is being handled, as a warning the first time and for debugging from then on.

    `message` has one `%s`, which `subject` takes.
    """
    level = logging.DEBUG if (message, subject) in _said else logging.WARNING
    _said.add((message, subject))
    _log.log(level, message, subject, exc_info=True)
