"""The environment, read once into a frozen object; nothing else in storescope reads it."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

_log = logging.getLogger(__name__)

DEFAULT_DIRECTORY: Final = Path(".storescope")
PID_VARIABLE: Final = "STORESCOPE_PID"


@dataclasses.dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable: how its text becomes a value, and what is allowed."""

    name: str
    parse: Callable[[str], Any]
    allowed: str
    meaning: str


def _boolean(text: str) -> bool:
    word = text.lower()
    if word in {"1", "true", "yes", "on"}:
        return True
    if word in {"0", "false", "no", "off"}:
        return False
    raise ValueError(text)


def _seconds(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise ValueError(text)
    return value


def _size(text: str) -> int:
    value = int(text)
    if value < 64 * 1024:
        raise ValueError(text)
    return value


def _variable(name: str, default: object, parse: Callable[[str], Any], allowed: str, meaning: str) -> Any:
    return dataclasses.field(default=default, metadata={"variable": Variable(name, parse, allowed, meaning)})


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """What the environment asks of storescope. Every field is one variable, or a snapshot of the `OTEL_*` ones."""

    enabled: bool = _variable(
        "STORESCOPE_ENABLED", True, _boolean, "on or off", "Patch stores and record what they do."
    )
    directory: Path = _variable(
        "STORESCOPE_DIR", DEFAULT_DIRECTORY, Path, "a folder", "Folder of the local OTLP files."
    )
    error_text: bool = _variable(
        "STORESCOPE_ERROR_TEXT",
        True,
        _boolean,
        "on or off",
        "Record the redacted text of errors; off leaves `error.type` alone.",
    )
    exit_timeout: float = _variable(
        "STORESCOPE_EXIT_TIMEOUT",
        1.0,
        _seconds,
        "seconds, 0 or more",
        "Longest wait at exit, in seconds, while nothing gets through.",
    )
    flush_timeout: float = _variable(
        "STORESCOPE_FLUSH_TIMEOUT",
        10.0,
        _seconds,
        "seconds, 0 or more",
        "Longest wait at exit, in seconds, while an endpoint keeps acknowledging.",
    )
    file_max_bytes: int = _variable(
        "STORESCOPE_FILE_MAX_BYTES",
        16 * 1024 * 1024,
        _size,
        "bytes, 65536 or more",
        "Size at which a local file is closed and the next one begun.",
    )
    directory_max_bytes: int = _variable(
        "STORESCOPE_DIR_MAX_BYTES",
        256 * 1024 * 1024,
        _size,
        "bytes, 65536 or more",
        "Size that all local files may have together; the oldest go first.",
    )
    verbose: bool = _variable(
        "STORESCOPE_VERBOSE",
        False,
        _boolean,
        "on or off",
        "Print the closing line even where stderr is not a terminal.",
    )
    quiet: bool = _variable("STORESCOPE_QUIET", False, _boolean, "on or off", "Never print the closing line.")
    servers: bool = _variable(
        "STORESCOPE_SERVERS",
        False,
        _boolean,
        "on or off",
        "Wake the agent in Python MCP servers that an instrumented program spawns.",
    )
    parent_pid: int | None = _variable(
        PID_VARIABLE,
        None,
        int,
        "a process id",
        "Written by the agent: the process that it instruments.",
    )
    otel: Mapping[str, str] = dataclasses.field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the environment (or `environ`). A bad value is warned about and leaves the default in force."""
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            variable: Variable | None = field.metadata.get("variable")
            text = environ.get(variable.name, "").strip() if variable else ""
            if not variable or not text:
                continue
            try:
                values[field.name] = variable.parse(text)
            except ValueError:
                _log.warning(
                    "%s=%r is not %s; using %s", variable.name, text, variable.allowed, field.default
                )
        values["otel"] = MappingProxyType(
            {
                name: text.strip()
                for name, text in environ.items()
                if name.startswith("OTEL_") and text.strip()
            }
        )
        settings = cls(**values)
        return dataclasses.replace(settings, directory=settings.directory.expanduser().absolute())

    @property
    def sdk_disabled(self) -> bool:
        """Whether `OTEL_SDK_DISABLED` switches OpenTelemetry off."""
        return self.otel.get("OTEL_SDK_DISABLED", "").lower() == "true"


@functools.cache
def process_settings() -> Settings:
    """Return what the environment asked for when this process first looked; a bad value is warned about once."""
    return Settings.from_env()


def claim_process() -> None:
    """Leave this process's id in the environment, so that a server which inherits it knows that it was spawned."""
    os.environ[PID_VARIABLE] = str(os.getpid())


def child_environment(**overrides: str) -> dict[str, str]:
    """Return this process's environment with some variables set, for a program that it starts."""
    return {**os.environ, **overrides}
