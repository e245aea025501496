"""Whether threads of this interpreter take turns."""

from __future__ import annotations

import sys


def has_gil() -> bool:
    """Whether one thread at a time runs Python code; false on a free-threaded build, unless it is told otherwise."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())
