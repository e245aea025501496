"""Which distribution and configurator `opentelemetry-instrument` takes, and whether it loads our instrumentation."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from storescope.cli.doctor.findings import Finding, ok, problem, warning
from storescope.settings import Settings

_OURS: Final = "storescope"
_BOTH: Final = "Run: export OTEL_PYTHON_DISTRO=storescope OTEL_PYTHON_CONFIGURATOR=storescope"


def distro(settings: Settings) -> Iterator[Finding]:
    """Which distribution is in force."""
    yield _in_force("distro", "OTEL_PYTHON_DISTRO", settings)


def configurator(settings: Settings) -> Iterator[Finding]:
    """Which configurator is in force."""
    yield _in_force("configurator", "OTEL_PYTHON_CONFIGURATOR", settings)


def instrumentor(settings: Settings) -> Iterator[Finding]:
    """Whether the launcher loads storescope's instrumentation."""
    if not any(found.name == _OURS for found in entry_points(group="opentelemetry_instrumentor")):
        yield problem("instrumentation", "is not registered", "Run: pip install --force-reinstall storescope")
    elif left_out := disabled_instrumentations(settings) & {_OURS, "*"}:
        variable = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
        text = f"{variable} leaves storescope out: no store is observed"
        yield problem("instrumentation", text, f"Take {left_out.pop()} out of {variable}.")
    else:
        yield ok("instrumentation", "storescope is loaded by the launcher")


def disabled_instrumentations(settings: Settings) -> set[str]:
    """Return the names that the launcher was told to leave out."""
    names = settings.otel.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")
    return {name.strip() for name in names} - {""}


def _in_force(subject: str, variable: str, settings: Settings) -> Finding:
    """Tell which of those installed the launcher takes: the one that is named, else what it finds first."""
    installed = {
        found.name: found for found in reversed(list(entry_points(group=f"opentelemetry_{subject}")))
    }
    candidates = list(reversed(installed.values()))
    named = settings.otel.get(variable)
    taken = next((found for found in candidates if named in {None, found.name}), None)
    choices = ", ".join(_described(found) for found in candidates) or "none"
    if taken is None:
        text = f"{variable}={named} names none that is installed ({choices}), so none is used"
        return problem(subject, text if named else "none is installed", _BOTH)
    if taken.name != _OURS:
        why = f"{variable} names it" if named else f"it was found first of {choices}"
        text = f"{_described(taken)}, not storescope: {why}; docs/exporting.md says what that changes"
        return warning(subject, text, _BOTH)
    if named is None and len(candidates) > 1:
        text = f"storescope, found first of {choices}; another installation may find another one first"
        return warning(subject, text, _BOTH)
    return ok(subject, f"storescope{f', named by {variable}' if named else ''}")


def _described(found: EntryPoint) -> str:
    return f"{found.name} ({found.dist.name} {found.dist.version})" if found.dist else found.name
