"""Runs the checks, section by section; one that fails is a finding itself."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from storescope.cli.doctor import conflicts, destinations, installation, launcher, stores, switches
from storescope.cli.doctor.findings import Check, Finding, Level, problem, warning
from storescope.settings import Settings

_SECTIONS: Final[Mapping[str, tuple[Check, ...]]] = {
    "Installation": (
        installation.storescope,
        installation.python,
        installation.opentelemetry,
        installation.command,
    ),
    "Stores": (stores.adapters, stores.named_callables),
    "Launcher": (launcher.distro, launcher.configurator, launcher.instrumentor),
    "Where telemetry goes": (destinations.signals, destinations.folder),
    "Settings": (switches.recording, switches.bad_values),
    "Conflicts": (
        conflicts.unknown_release,
        conflicts.other_instrumentations,
        conflicts.green_threads,
        conflicts.frozen,
    ),
}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings, by section."""

    sections: Mapping[str, Sequence[Finding]]

    def count(self, level: Level) -> int:
        """Return how many findings are of a level."""
        return sum(finding.level is level for findings in self.sections.values() for finding in findings)

    @property
    def has_problems(self) -> bool:
        """Whether anything is a problem; warnings are none."""
        return self.count(Level.PROBLEM) > 0

    def document(self) -> dict[str, Any]:
        """Return it as a JSON object; docs/doctor.md describes it."""
        return {
            "format": "storescope.doctor/1",
            "problems": self.count(Level.PROBLEM),
            "warnings": self.count(Level.WARNING),
            "sections": [
                {"name": name, "findings": [_as_json(finding) for finding in findings]}
                for name, findings in self.sections.items()
            ],
        }


def examine() -> Diagnosis:
    """Examine the environment that this process runs in.

    Blocks for as long as importing the installed stores takes, and 2 s at most for each receiver.
    """
    with _undisturbed() as said:
        settings = Settings.from_env()
        said.clear()  # bad values are findings of a section of their own
        found = {name: list(_findings(checks, settings, said)) for name, checks in _SECTIONS.items()}
    return Diagnosis(found)


def _findings(checks: Sequence[Check], settings: Settings, said: list[str]) -> Iterator[Finding]:
    for check in checks:
        try:
            yield from check(settings)
        except Exception as error:
            name = check.__name__.replace("_", " ")
            yield problem(
                name,
                f"could not be examined: {type(error).__name__}: {error}",
                "Please report this with its text; the other findings stand.",
            )
        for text in dict.fromkeys(said):
            yield warning("storescope says", text.removeprefix("storescope: "), "See docs/configuration.md.")
        said.clear()


@contextlib.contextmanager
def _undisturbed() -> Iterator[list[str]]:
    """Collect what storescope would warn about; hush what stores say when they are imported; write no bytecode."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("storescope")
    propagate, write_no_bytecode = log.propagate, sys.dont_write_bytecode
    log.addHandler(handler)
    log.propagate, sys.dont_write_bytecode = False, True
    path = sys.path[:]
    sys.path.append(str(Path.cwd()))  # modules of the program's own are found as `python app.py` finds them
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield said
            sys.stderr.flush()  # what a store prints when it is imported stands before the findings
    finally:
        log.removeHandler(handler)
        log.propagate, sys.dont_write_bytecode = propagate, write_no_bytecode
        sys.path[:] = path


def _as_json(finding: Finding) -> dict[str, Any]:
    return {
        "level": finding.level.value,
        "subject": finding.subject,
        "text": finding.text,
        "advice": finding.advice or None,
        "details": list(finding.details),
    }
