"""How a service and a request become names and attributes: one spelling for every adapter."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from storescope import semconv
from storescope.stores.adapter import Described, Subject

#: Descriptions of calls that an adapter keeps at most; the oldest go first.
MAX_DESCRIPTIONS: Final = 1024

#: Longest name that is shown, in characters. Agents make names up.
MAX_NAME: Final = 256

_DEFAULT_PORTS: Final[Mapping[str, int]] = {"http": 80, "https": 443, "ws": 80, "wss": 443}


@dataclass(frozen=True, slots=True)
class ServiceIdentity:
    """Which MCP server a request goes to, and how."""

    name: str | None = None
    transport: str | None = None
    address: str | None = None
    port: int | None = None
    protocol_version: str | None = None

    def attributes(self) -> dict[str, str | int]:
        """Return what is known, by the conventions' names."""
        known = {
            semconv.SERVICE_NAME: _shown(self.name),
            semconv.NETWORK_TRANSPORT: self.transport,
            semconv.NETWORK_PROTOCOL_NAME: "http" if self.transport == "tcp" else None,
            semconv.SERVER_ADDRESS: self.address,
            semconv.SERVER_PORT: self.port,
            semconv.MCP_PROTOCOL_VERSION: self.protocol_version,
        }
        return {key: value for key, value in known.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Scope:
    """For whom a store works: everybody, or one agent; or nobody knows yet."""

    agent_id: str | None = None
    known: bool = True

    def attributes(self) -> dict[str, str]:
        """Return the scope and, where there is one, the agent."""
        if not self.known:
            return {}
        if self.agent_id is None:
            return {semconv.STORE_SCOPE: "store"}
        return {semconv.STORE_SCOPE: "agent", semconv.AGENT_ID: self.agent_id}


UNKNOWN_SERVICE: Final = ServiceIdentity()
UNKNOWN_SCOPE: Final = Scope(known=False)


def service_identity(
    name: str | None, url: str | None, command: str | None, protocol_version: str | None = None
) -> ServiceIdentity:
    """Describe a service by its configuration. Of a URL only host and port are kept."""
    if not url:
        return ServiceIdentity(name, "pipe" if command else None, None, None, protocol_version)
    host, port = None, None
    try:
        parts = urlsplit(url)
        host = parts.hostname
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:  # no host that can be, or no port: the connection will fail, the span need not
        pass
    return ServiceIdentity(name, "tcp", host, port, protocol_version)


def request_subject(
    method: str,
    service: ServiceIdentity,
    scope: Scope,
    *,
    tool: str | None = None,
    alias: str | None = None,
    prompt: str | None = None,
    uri: str | None = None,
) -> Subject:
    """Name a request to an MCP server by the MCP conventions."""
    tool, alias, prompt = _shown(tool), _shown(alias), _shown(prompt)
    what = tool or prompt
    shared: dict[str, str | int] = {semconv.MCP_METHOD_NAME: method, **service.attributes()}
    if tool:
        shared[semconv.GEN_AI_OPERATION_NAME] = "execute_tool"
        shared[semconv.GEN_AI_TOOL_NAME] = tool
    if prompt:
        shared[semconv.GEN_AI_PROMPT_NAME] = prompt
    span: dict[str, str | int] = {**shared, **scope.attributes()}
    if alias and alias != tool:
        span[semconv.TOOL_ALIAS] = alias
    if uri:
        span[semconv.MCP_RESOURCE_URI] = _encodable(public_uri(uri))
    return Subject(f"{method} {what}" if what else method, span, shared)


def operation_subject(
    operation: str, service: ServiceIdentity, scope: Scope, *, from_memory: bool = False
) -> Subject:
    """Name an operation that the store does itself; `from_memory` marks a list that never leaves it."""
    shared: dict[str, str | int] = {semconv.STORE_OPERATION: operation}
    about = _shown(service.name)
    if about:
        shared[semconv.SERVICE_NAME] = about
    if from_memory:
        shared[semconv.CACHE_RESULT] = "hit"
    name = f"{operation} {about}" if about else operation
    return Subject(name, {**shared, **scope.attributes()}, shared)


def _shown(name: str | None) -> str | None:
    """Cut a name to what is shown of it."""
    return None if name is None else _encodable(str.__getitem__(name, slice(MAX_NAME)))


def _encodable(text: str) -> str:
    """Replace what UTF-8 has no form for, or an exporter would refuse the whole batch, and what steers terminals."""
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in text)


def public_uri(uri: str) -> str:
    """Cut credentials, query and fragment off a URI."""
    try:
        parts = urlsplit(uri)
    except ValueError:  # no host that can be: what of it is a password nobody knows
        return f"{uri.partition(':')[0]}:"
    path = parts.path if parts.netloc else parts.path.rpartition("@")[2]
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], path=path, query="", fragment="").geturl()


class DescriptionCache:
    """Descriptions by key, at most `MAX_DESCRIPTIONS`. Reading takes no lock."""

    def __init__(self, max_size: int = MAX_DESCRIPTIONS) -> None:
        self._max_size = max_size
        self._descriptions: dict[Hashable, Described] = {}
        self._lock = threading.Lock()
        self.get = self._descriptions.get

    def put(self, key: Hashable, described: Described) -> None:
        """Keep a description, in place of the oldest one if need be."""
        with self._lock:
            if key not in self._descriptions and len(self._descriptions) >= self._max_size:
                del self._descriptions[next(iter(self._descriptions))]
            self._descriptions[key] = described

    def clear(self) -> None:
        """Forget all: names may have changed."""
        with self._lock:
            self._descriptions.clear()

    def __len__(self) -> int:
        return len(self._descriptions)
