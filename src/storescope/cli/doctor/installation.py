"""What is installed here, and whether the command that people type starts it."""

from __future__ import annotations

import platform
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
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
    else:
        yield ok("OpenTelemetry", ", ".join(found))


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
