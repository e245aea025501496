"""The environment, read once into a frozen object; nothing else in storescope reads it."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

_log = logging.getLogger(__name__)

DEFAULT_DIRECTORY: Final = Path(".storescope")
PID_VARIABLE: Final = "STORESCOPE_PID"

#: What `STORESCOPE_CAPTURE` can ask for.
PAYLOADS: Final = frozenset({"arguments", "results"})


#: What is put in force where `STORESCOPE_REDACT` cannot be read: secrets must not pass for want of their pattern.
REDACT_EVERYTHING: Final = re.compile(r".+", re.DOTALL)


@dataclasses.dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable: how its text becomes a value, and what is allowed."""

    name: str
    parse: Callable[[str], Any]
    allowed: str
    meaning: str
    default_text: str
    #: Whether the value must not be shown.
    secret: bool = False
    #: What a bad value puts in force, and how to say so, where the default would be worse than that.
    fallback: tuple[object, str] | None = None

    def read(self, text: str, default: object) -> Reading:
        """Read a value. A bad one gives the default, or the fallback where there is one, and a complaint."""
        if not text:
            return Reading(self, text, default)
        try:
            return Reading(self, text, self.parse(text))
        except ValueError:
            value, said = self.fallback or (default, f"using the default ({self.default_text})")
            return Reading(self, text, value, f"{self.name}={text!r} is not {self.allowed}; {said}")


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """What the environment says of one variable, and what that puts in force."""

    variable: Variable
    #: Empty where the variable is not set.
    text: str
    value: Any
    #: What is wrong with a bad value, and what is used in its place; empty where nothing is.
    complaint: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class NamedCallable:
    """One entry of `STORESCOPE_TARGETS`: a callable to observe, and the MCP method or store operation that it is."""

    module: str
    name: str
    operation: str


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


def _at_least(minimum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise ValueError(text)
        return value

    return parse


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for part in text.split(",") if (word := part.strip()))


def _payloads(text: str) -> frozenset[str]:
    words = frozenset(_words(text.lower()))
    if not words <= PAYLOADS:
        raise ValueError(text)
    return words


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(text) from error


_TARGET: Final = re.compile(r"(?P<module>[\w.]+):(?P<name>[\w.]+)=(?P<operation>[\w./-]+)")


def _targets(text: str) -> tuple[NamedCallable, ...]:
    matches = [_TARGET.fullmatch(word) for word in _words(text)]
    if not all(matches):
        raise ValueError(text)
    return tuple(NamedCallable(**match.groupdict()) for match in matches if match)


def _variable(
    name: str,
    default: object,
    parse: Callable[[str], Any],
    allowed: str,
    meaning: str,
    *,
    default_text: str | None = None,
    secret: bool = False,
    fallback: tuple[object, str] | None = None,
) -> Any:
    text = str(default) if default_text is None else default_text
    variable = Variable(name, parse, allowed, meaning, text, secret, fallback)
    return dataclasses.field(default=default, repr=not secret, metadata={"variable": variable})


def _switch(name: str, default: bool, meaning: str) -> Any:
    return _variable(name, default, _boolean, "on or off", meaning, default_text="on" if default else "off")


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """What the environment asks of storescope. Every field is one variable, or a snapshot of the `OTEL_*` ones."""

    enabled: bool = _switch("STORESCOPE_ENABLED", True, "Patch stores and record what they do.")
    disabled_stores: tuple[str, ...] = _variable(
        "STORESCOPE_DISABLED_STORES",
        (),
        _words,
        "names of store adapters, with commas between them",
        "Kinds of store that are not patched; `storescope doctor` lists their names.",
        default_text="none",
    )
    excluded_tools: tuple[str, ...] = _variable(
        "STORESCOPE_EXCLUDED_TOOLS",
        (),
        _words,
        "patterns such as `debug_*`, with commas between them",
        "Tools, by their name on the wire or in the store, whose calls are not recorded.",
        default_text="none",
    )
    targets: tuple[NamedCallable, ...] = _variable(
        "STORESCOPE_TARGETS",
        (),
        _targets,
        "entries such as `pkg.mod:Class.method=tools/call`, with commas between them",
        "Callables of your own to observe: module, dotted name, and the MCP method or operation that each is.",
        default_text="none",
    )
    capture: frozenset[str] = _variable(
        "STORESCOPE_CAPTURE",
        frozenset(),
        _payloads,
        "`arguments`, `results`, or both with a comma between them",
        "Record the arguments or results of tools, redacted.",
        default_text="nothing",
    )
    capture_limit: int = _variable(
        "STORESCOPE_CAPTURE_LIMIT",
        4096,
        _at_least(1),
        "bytes, 1 or more",
        "Longest recorded payload, in bytes of UTF-8; what is longer is cut.",
    )
    redact: re.Pattern[str] | None = _variable(
        "STORESCOPE_REDACT",
        None,
        _pattern,
        "a regular expression",
        "What else to take out of error texts and payloads, beside the secrets that are always taken out.",
        default_text="nothing",
        fallback=(REDACT_EVERYTHING, "texts are taken out whole"),
    )
    error_text: bool = _switch(
        "STORESCOPE_ERROR_TEXT",
        True,
        "Record the redacted text of errors; off leaves `error.type` alone.",
    )
    digest_key: str | None = _variable(
        "STORESCOPE_DIGEST_KEY",
        None,
        str,
        "any text",
        "Key of `storescope.call.digest`; share it among machines whose calls are to be compared.",
        default_text="a random one, kept in `STORESCOPE_DIR`",
        secret=True,
    )
    stuck_after: float = _variable(
        "STORESCOPE_STUCK_AFTER",
        60.0,
        _seconds,
        "seconds, 0 or more",
        "Age, in seconds, at which a call that still hangs is warned about; 0 never warns.",
        default_text="60",
    )
    directory: Path = _variable(
        "STORESCOPE_DIR", DEFAULT_DIRECTORY, Path, "a folder", "Folder of the local OTLP files."
    )
    file_max_bytes: int = _variable(
        "STORESCOPE_FILE_MAX_BYTES",
        16 * 1024 * 1024,
        _at_least(64 * 1024),
        "bytes, 65536 or more",
        "Size at which a local file is closed and the next one begun.",
    )
    directory_max_bytes: int = _variable(
        "STORESCOPE_DIR_MAX_BYTES",
        256 * 1024 * 1024,
        _at_least(64 * 1024),
        "bytes, 65536 or more",
        "Size that all local files may have together; the oldest go first.",
    )
    exit_timeout: float = _variable(
        "STORESCOPE_EXIT_TIMEOUT",
        1.0,
        _seconds,
        "seconds, 0 or more",
        "Longest wait at exit, in seconds, while nothing gets through.",
        default_text="1",
    )
    flush_timeout: float = _variable(
        "STORESCOPE_FLUSH_TIMEOUT",
        10.0,
        _seconds,
        "seconds, 0 or more",
        "Longest wait at exit, in seconds, while an endpoint keeps acknowledging.",
        default_text="10",
    )
    verbose: bool = _switch(
        "STORESCOPE_VERBOSE", False, "Print the closing line even where stderr is not a terminal."
    )
    quiet: bool = _switch("STORESCOPE_QUIET", False, "Never print the closing line.")
    servers: bool = _switch(
        "STORESCOPE_SERVERS",
        False,
        "Wake the agent in Python MCP servers that an instrumented program spawns.",
    )
    parent_pid: int | None = _variable(
        PID_VARIABLE,
        None,
        int,
        "a process id",
        "Written by the agent, not by you: the process that it instruments.",
        default_text="none",
    )
    otel: Mapping[str, str] = dataclasses.field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def variables(cls) -> dict[str, Variable]:
        """Return the table of variables, by the name of their field."""
        return {
            field.name: field.metadata["variable"]
            for field in dataclasses.fields(cls)
            if "variable" in field.metadata
        }

    @classmethod
    def readings(cls, environ: Mapping[str, str] | None = None) -> dict[str, Reading]:
        """Return what the environment (or `environ`) says of each variable, by the name of its field."""
        environ = os.environ if environ is None else environ
        return {
            field.name: variable.read(environ.get(variable.name, "").strip(), field.default)
            for field in dataclasses.fields(cls)
            if (variable := field.metadata.get("variable"))
        }

    @staticmethod
    def otel_variables(environ: Mapping[str, str] | None = None) -> Mapping[str, str]:
        """Return the `OTEL_*` variables of the environment (or `environ`) that are set."""
        environ = os.environ if environ is None else environ
        found = {name: text.strip() for name, text in environ.items() if name.startswith("OTEL_")}
        return MappingProxyType({name: text for name, text in found.items() if text})

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the environment (or `environ`). A bad value is warned about and leaves the default in force."""
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for name, reading in cls.readings(environ).items():
            values[name] = reading.value
            if reading.complaint:
                _log.warning("%s", reading.complaint)
        values["otel"] = cls.otel_variables(environ)
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
