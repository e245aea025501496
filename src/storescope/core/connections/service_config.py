"""What a service config may say, read once into one of three kinds of service."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar
from urllib.parse import urlsplit

from storescope.core import checks

#: Seconds that opening a connection may take, where the config does not say.
CONNECT_TIMEOUT = 30.0
_HIGHEST_PORT = 65535


def _texts(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, (list, tuple)):
        raise TypeError(f"{name} must be a list of texts, not {type(value).__name__}")
    for index, text in enumerate(value):
        if not isinstance(text, str):
            raise TypeError(f"{name}[{index}] must be a text, not {type(text).__name__}")
    return tuple(value)


def _text_by_name(name: str, value: object) -> dict[str, str]:
    """Return texts by name; none is shown in an error, for headers and environments hold secrets."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict of texts, not {type(value).__name__}")
    for key, text in value.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise TypeError(f"{name}[{key!r}] must be a text, not {type(text).__name__}")
    return dict(value)


def _url(name: str, value: object) -> str:
    text = checks.text(name, value)
    try:
        parts = urlsplit(text)
        _ = parts.port  # whose reading is its check
    except ValueError as error:
        raise ValueError(f"{name} is no address ({error}): {value!r}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{name} must be an address such as 'http://127.0.0.1:8000/mcp', not {value!r}")
    return str(value)


def _folder(name: str, value: object) -> str:
    return checks.text(name, os.fspath(value) if isinstance(value, os.PathLike) else value)


def _port(name: str, value: object) -> int:
    port = checks.whole(name, value)
    if port > _HIGHEST_PORT:
        raise ValueError(f"{name} must be {_HIGHEST_PORT} or less, not {value!r}")
    return port


def _key(check: Callable[[str, object], Any], default: Any = MISSING, *, shown: bool = True) -> Any:
    """Describe a key of a config: how it is checked, and whether a `repr` may show it."""
    if default is MISSING:
        return field(metadata={"check": check}, repr=shown)
    if isinstance(default, dict):
        return field(default_factory=dict, metadata={"check": check}, repr=shown)
    return field(default=default, metadata={"check": check}, repr=shown)


@dataclass(frozen=True)
class HTTPService:
    """An MCP server over streamable HTTP."""

    names: ClassVar[tuple[str, ...]] = ("http", "streamable-http", "streamable_http")
    url: str = _key(_url, shown=False)
    headers: Mapping[str, str] = _key(_text_by_name, {}, shown=False)
    name: str = _key(checks.text, "")
    connect_timeout: float = _key(checks.positive, CONNECT_TIMEOUT)

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        return self.name or f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@dataclass(frozen=True)
class StdioService:
    """An MCP server that is started as a child process and spoken to over its stdin and stdout."""

    names: ClassVar[tuple[str, ...]] = ("stdio",)
    command: str = _key(checks.text)
    args: tuple[str, ...] = _key(_texts, (), shown=False)
    env: Mapping[str, str] = _key(_text_by_name, {}, shown=False)
    cwd: str | None = _key(_folder, None)
    name: str = _key(checks.text, "")
    connect_timeout: float = _key(checks.positive, CONNECT_TIMEOUT)

    def __str__(self) -> str:
        return self.name or self.command


@dataclass(frozen=True)
class TCPService:
    """Something that takes TCP connections."""

    names: ClassVar[tuple[str, ...]] = ("tcp",)
    host: str = _key(checks.text)
    port: int = _key(_port)
    name: str = _key(checks.text, "")
    connect_timeout: float = _key(checks.positive, CONNECT_TIMEOUT)

    def __str__(self) -> str:
        return self.name or f"{self.host}:{self.port}"


Service = HTTPService | StdioService | TCPService

#: The key by which each kind of service is known.
_KINDS: dict[str, type[Service]] = {"url": HTTPService, "command": StdioService, "host": TCPService}
#: How files of definitions name the kind besides; it must agree.
_TRANSPORT_KEYS = ("type", "transport")


def read_service_config(config: Mapping[str, Any]) -> Service:
    """Return the service that a config describes; TypeError and ValueError name the key and what it should be."""
    if not isinstance(config, Mapping):
        raise TypeError(f"service_config must be a dict, not {type(config).__name__}")
    leading = _leading_key(config)
    kind = _KINDS[leading]
    known = {key.name: key for key in fields(kind)}
    unknown = [key for key in config if key not in known and key not in _TRANSPORT_KEYS]
    if unknown:
        raise ValueError(
            f"service_config with {leading!r} knows no {_listed(unknown)}: leave it out, or use one of "
            f"{_listed([*known, *_TRANSPORT_KEYS])}"
        )
    for key in _TRANSPORT_KEYS:
        if key in config:
            checks.one_of(f"service_config[{key!r}] beside {leading!r}", config[key], kind.names)
    missing = [name for name, key in known.items() if name not in config and _required(key)]
    if missing:
        raise ValueError(f"service_config with {leading!r} lacks {_listed(missing)}")
    return kind(
        **{
            name: known[name].metadata["check"](f"service_config[{name!r}]", value)
            for name, value in config.items()
            if name in known
        }
    )


def _required(key: Any) -> bool:
    return key.default is MISSING and key.default_factory is MISSING


def _leading_key(config: Mapping[str, Any]) -> str:
    present = [key for key in _KINDS if key in config]
    if len(present) == 1:
        return present[0]
    if present:
        raise ValueError(
            f"service_config has {_listed(present)}, which contradict each other: keep one of them"
        )
    found = f"has only {_listed(config)}" if config else "is empty"
    raise ValueError(
        f"service_config {found}: it must have 'url' (an MCP server over streamable HTTP), 'command' (an MCP "
        "server over stdio), or 'host' and 'port' (TCP); or give the pool a factory"
    )


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names))
