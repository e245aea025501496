"""Calls and answers of worker processes, pickled here: what cannot be undone would break a ProcessPoolExecutor."""

from __future__ import annotations

import pickle
import traceback
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

from storescope.core.errors import RemoteError


class Answer(NamedTuple):
    """What came of a call: a pickled value, or with the other two a pickled error (empty where it cannot be)."""

    pickled: bytes
    error: str = ""
    trace: str = ""


def dump(value: object) -> bytes:
    """Return a pickle, of what only multiprocessing can pickle too."""
    return bytes(ForkingPickler.dumps(value))


def answer(pickled: bytes) -> Answer:
    """Make a call in a worker process. Never raises: every error is part of the answer."""
    try:
        function, args, kwargs = pickle.loads(pickled)  # noqa: S301 - from the process that made this one
        return Answer(dump(function(*args, **kwargs)))
    except BaseException as error:
        said = "".join(traceback.format_exception_only(error)).strip()
        trace = "".join(traceback.format_exception(error))
        try:
            return Answer(dump(error), said, trace)
        except BaseException:
            return Answer(b"", said, trace)


def restored(found: Answer) -> tuple[Any, BaseException | None]:
    """Return the value or the error of an answer; a RemoteError for what cannot be unpickled here."""
    try:
        value = pickle.loads(found.pickled) if found.pickled else None  # noqa: S301 - from a process of ours
    except BaseException as trouble:
        return None, _lost(found, trouble)
    if not found.trace:
        return value, None
    error = value if isinstance(value, BaseException) else RemoteError(found.error)
    error.__cause__ = RemoteError(f"in a worker process:\n{found.trace}")
    return None, error


def _lost(found: Answer, trouble: BaseException) -> RemoteError:
    reason = "".join(traceback.format_exception_only(trouble)).strip()
    if not found.trace:
        return RemoteError(f"the task's result cannot be unpickled: {reason}")
    error = RemoteError(f"{found.error} (the error itself cannot be unpickled: {reason})")
    error.__cause__ = RemoteError(f"in a worker process:\n{found.trace}")
    return error
