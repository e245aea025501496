"""What has to be made anew in a forked child: threads are missing there, and locks may be held by those missing."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable


def after_fork(method: Callable[[], None]) -> None:
    """Have a bound method called in every child that is forked from now on, for as long as its object lives."""
    if not hasattr(os, "register_at_fork"):
        return
    reference = weakref.WeakMethod(method)

    def call() -> None:
        if (living := reference()) is not None:
            living()

    os.register_at_fork(after_in_child=call)
