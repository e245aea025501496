"""What is installed here, and whether the command that people type starts it."""

from __future__ import annotations

import platform
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final

import storescope as package
from storescope.cli.doctor.findings import Finding, ok, problem, warning
from storescope.settings import Settings

_LAUNCHER: Final = "opentelemetry-instrument"
_PACKAGES: Final = (
    "opentelemetry-api",
    "opentelemetry-sdk",
    "opentelemetry-instrumentation",
    "opentelemetry-exporter-otlp",
)
_PIN: Final = re.compile(r"(opentelemetry-[\w-]+)\s*==\s*([\w.]+)")
_TRIED: Final = ((3, 10), (3, 14))


def storescope(_: Settings) -> Iterator[Finding]:
    """Which storescope this is."""
    yield ok("storescope", f"{package.__version__}, in {Path(package.__file__).parent}")


def python(_: Settings) -> Iterator[Finding]:
    """Which interpreter runs here, and whether it is one that storescope is tried on."""
    running = f"{platform.python_implementation()} {platform.python_version()}, {sys.executable}"
    oldest, newest = (".".join(map(str, release)) for release in _TRIED)
    if platform.python_implementation() == "CPython" and sys.version_info[:2] <= _TRIED[1]:
        yield ok("Python", running)
    else:
        yield warning("Python", running, f"storescope is tried on CPython {oldest} to {newest}.")


def opentelemetry(_: Settings) -> Iterator[Finding]:
    """Which releases of OpenTelemetry are installed, and whether any is missing."""
    found, missing = [], []
    for name in _PACKAGES:
        try:
            found.append(f"{name.removeprefix('opentelemetry-')} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        yield problem(
            "OpenTelemetry", f"{', '.join(missing)} missing", f"Run: pip install {' '.join(missing)}"
        )
    elif mismatches := list(_mismatches()):
        advice = "Install all that needs OpenTelemetry in one go, so that its releases fit together."
        yield warning("OpenTelemetry", "; ".join(mismatches), advice)
    else:
        yield ok("OpenTelemetry", ", ".join(found))


def _mismatches() -> Iterator[str]:
    """Say which packages are beside another release of one that they are pinned to."""
    for name in _PACKAGES:
        for requirement in requires(name) or ():
            pin = _PIN.match(requirement)
            if pin and "extra" not in requirement and (installed := version(pin[1])) != pin[2]:
                yield f"{name} {version(name)} needs {pin[1]} {pin[2]}, and {installed} is installed"


def command(_: Settings) -> Iterator[Finding]:
    """Whether typing `opentelemetry-instrument` starts the launcher of this environment."""
    ours = next(
        (where for folder in _script_folders() if (where := shutil.which(_LAUNCHER, path=folder))), None
    )
    typed = shutil.which(_LAUNCHER)
    if ours is None:
        advice = "Run: pip install --force-reinstall opentelemetry-instrumentation"
        yield problem(_LAUNCHER, "is not installed in this environment", advice)
    elif typed is None:
        yield warning(_LAUNCHER, "is not on PATH", f"Activate this environment, or type {ours} in its place.")
    elif Path(typed).resolve() != Path(ours).resolve():
        text = f"the one on PATH belongs to another environment: {typed}"
        yield warning(_LAUNCHER, text, f"Activate this environment, or type {ours} in its place.")
    else:
        yield ok(_LAUNCHER, typed)


def _script_folders() -> Iterator[str]:
    yield sysconfig.get_path("scripts")
    yield sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user"))
