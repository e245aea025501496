"""What an examination finds: a fact, how bad it is, and what to do about it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from storescope.settings import Settings


class Level(enum.Enum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    """May be meant so, or matters only to some programs."""
    PROBLEM = "problem"
    """Something does not work, or nothing is recorded."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact."""

    level: Level
    #: What it is about.
    subject: str
    text: str
    #: What to do, in one sentence; empty where there is nothing to do.
    advice: str = ""
    #: More of it, a line each.
    details: tuple[str, ...] = ()


def ok(subject: str, text: str, *, details: tuple[str, ...] = ()) -> Finding:
    """Return a finding that asks for nothing."""
    return Finding(Level.OK, subject, text, details=details)


def warning(subject: str, text: str, advice: str) -> Finding:
    """Return a finding that one should know of."""
    return Finding(Level.WARNING, subject, text, advice)


def problem(subject: str, text: str, advice: str) -> Finding:
    """Return a finding that has to be dealt with."""
    return Finding(Level.PROBLEM, subject, text, advice)


Check = Callable[[Settings], Iterator[Finding]]
"""Looks at one thing, with the settings in force. It changes nothing and ends in bounded time."""
