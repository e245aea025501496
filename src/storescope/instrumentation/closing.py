"""What happens when the program ends: exports are bounded, and a line says what was seen and where it is."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from storescope.export.budget import ExitBudget
from storescope.export.delivery import Delivery
from storescope.instrumentation.in_flight import operations
from storescope.settings import Settings


class Closing:
    """The end of the program, as far as telemetry is concerned; `current` once it is provided for."""

    current: Closing | None = None

    def __init__(self, settings: Settings) -> None:
        self.budget = ExitBudget(settings.exit_timeout, settings.flush_timeout)
        self.deliveries: list[Delivery] = []
        #: Shut the providers down, where no exit hook of theirs will run.
        self.shutdowns: list[Callable[[], None]] = []
        self._settings = settings
        self._pid = os.getpid()
        self._flushes_children = False

    @contextmanager
    def around_providers(self) -> Iterator[None]:
        """Register the exit hooks. Providers have to be built inside.

        Hooks run in the opposite order of their registration, so that the clock starts before the providers shut
        themselves down, and the line comes after. No provider is shut down twice: the application may have done it.
        """
        Closing.current = self
        atexit.register(self.report)
        yield
        atexit.register(self.budget.begin)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._flush_multiprocessing_child)

    def report(self) -> None:
        """Print the closing line where somebody will read it. Not through logging: stores take its handlers away."""
        try:
            if self._is_wanted() and (line := self._line()):
                # Past the stream's buffer: what could not be written stays there, and changes the exit status to 120.
                sys.stderr.flush()
                os.write(sys.stderr.fileno(), f"{line}\n".encode(errors="replace"))
        except (OSError, ValueError, AttributeError):
            pass  # stderr is closed, broken or missing

    def _is_wanted(self) -> bool:
        if self._settings.quiet or not self._settings.enabled or os.getpid() != self._pid:
            return False
        return self._settings.verbose or sys.stderr.isatty()

    def _line(self) -> str:
        operations, errors = _counts()
        places = [delivery.whereabouts() for delivery in self.deliveries]
        files = [_short(place.file) for place in places if place.file is not None]
        endpoints = list(dict.fromkeys(place.endpoint for place in places if place.endpoint))
        if not (operations or files or endpoints or self._settings.verbose):
            return ""  # a helper process that had nothing to do with a store
        parts = [f"storescope: {_plural(operations, 'operation')}, {_plural(errors, 'error')}"]
        if endpoints:
            parts.append(f"sent to {' and '.join(endpoints)}")
        if files:
            parts.append(f"in {' and '.join(files)}")
        if any(place.file is not None and place.file.name.startswith("traces-") for place in places):
            parts.append("to see them: storescope view")
        return "; ".join(parts)

    def _flush_multiprocessing_child(self) -> None:
        """Have multiprocessing flush a child that it forked: it ends them without any exit hook but its own."""
        util = sys.modules.get("multiprocessing.util")
        if util is not None and not self._flushes_children:
            # A child forgets the finalizers of its parent, and then runs these hooks.
            util.register_after_fork(
                self, lambda closing: util.Finalize(None, closing._flush, exitpriority=0)
            )
            self._flushes_children = True

    def _flush(self) -> None:
        self.budget.begin()
        operations.close_all()
        for shutdown in self.shutdowns:
            shutdown()


def _counts() -> tuple[int, int]:
    module = "storescope.instrumentation.tally"
    if module not in sys.modules:
        return 0, 0
    from storescope.instrumentation.tally import tally

    return tally.read()


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)
