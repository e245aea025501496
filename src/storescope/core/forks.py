"""Forked children: threads and connections are missing there, and locks may be held by what is missing."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from types import MethodType
from typing import Any, cast

from storescope.core.errors import UsedAfterFork

_process = os.getpid()
#: What objects want called, held weakly, so that a thousand caches that lived and died leave nothing here.
_methods: weakref.WeakKeyDictionary[object, list[Callable[[Any], None]]] = weakref.WeakKeyDictionary()


def current_process() -> int:
    """Return the id of this process without a system call; it is kept by what must not be used in a child."""
    return _process


def check_process(made_in: int, what: object) -> None:
    """Raise UsedAfterFork where this process is a child of the one that an object was made in."""
    if made_in != _process:
        raise UsedAfterFork(f"{what} was made in process {made_in}, and this is {_process}: make one here")


def after_fork(method: Callable[[], None]) -> None:
    """Have a bound method called in every child that is forked from now on, for as long as its object lives."""
    bound = cast("MethodType", method)
    _methods.setdefault(bound.__self__, []).append(bound.__func__)


def _in_child() -> None:
    global _process  # noqa: PLW0603
    _process = os.getpid()
    for owner, methods in list(_methods.items()):
        for method in methods:
            method(owner)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
