"""Variables that switch recording off, or that say what cannot be."""

from __future__ import annotations

from collections.abc import Iterator

from storescope.cli.doctor.findings import Finding, ok, problem
from storescope.settings import Settings


def recording(settings: Settings) -> Iterator[Finding]:
    """Whether anything is recorded at all."""
    switched_off = [
        *(["OTEL_SDK_DISABLED"] if settings.sdk_disabled else []),
        *(["STORESCOPE_ENABLED"] if not settings.enabled else []),
    ]
    for variable in switched_off:
        yield problem(variable, "switches everything off: nothing is recorded", f"Unset {variable}.")
    if not switched_off:
        yield ok("recording", "is on")


def bad_values(_: Settings) -> Iterator[Finding]:
    """Which variables have a value that is not allowed."""
    readings = Settings.readings().values()
    for reading in readings:
        if reading.complaint:
            name = reading.variable.name
            text = reading.complaint.removeprefix(f"{name}=")
            yield problem(name, text, f"Set it to {reading.variable.allowed}, or unset it.")
    if not any(reading.complaint for reading in readings):
        yield ok("values", f"{sum(bool(reading.text) for reading in readings)} set, none is bad")
