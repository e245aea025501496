"""The parts that OTLP/JSON spans and metrics are made of: strings, numbers, attributes, resources, scopes.

Every optional member is written with its comma behind it, so a member that is always there stands last.
"""

from __future__ import annotations

import base64
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any, Final, SupportsFloat, TypeVar

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

#: Values nested deeper become text. Protobuf's own reader stops at 100 levels, and a mapping takes three.
MAX_DEPTH: Final = 24
#: How many attribute keys are kept encoded. The few dozen of the conventions come with every span.
MAX_KEYS: Final = 1024
MAX_KEY_LENGTH: Final = 128
#: Integers from here on, and below its negative, do not fit into OTLP's 64 bits.
INT_LIMIT: Final = 2**63


def quote(text: object) -> str:
    """Write a JSON string. A lone surrogate, which UTF-8 cannot hold, becomes U+FFFD."""
    if not isinstance(text, str):
        text = _as_text(text)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return encode_basestring_ascii(text)


def _as_text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # a foreign __str__ may raise anything
        return f"<{type(value).__name__}>"


def double(value: SupportsFloat) -> str:
    """Write a double; what JSON has no number for is a string, as protobuf has it."""
    value = float(value)
    if math.isfinite(value):
        # Not repr(): a subclass, such as NumPy's, has one of its own.
        return float.__repr__(value)
    return '"NaN"' if math.isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'


def text_member(name: str, value: str | None) -> str:
    """Write a string member, or nothing for the empty string, which is the default."""
    return f'"{name}":{quote(value)},' if value else ""


def int_member(name: str, value: int | None) -> str:
    """Write a member of up to 32 bits, or nothing for 0."""
    return f'"{name}":{value:d},' if value else ""


def long_member(name: str, value: int | None) -> str:
    """Write a member of 64 bits, or nothing for 0."""
    return f'"{name}":"{value:d}",' if value else ""


def double_member(name: str, value: float | None) -> str:
    """Write a double member, or nothing for None; 0 is a value like others."""
    return "" if value is None else f'"{name}":{double(value)},'


def list_member(name: str, items: Iterable[str]) -> str:
    """Write a list member from its encoded items, or nothing if there are none."""
    text = ",".join(items)
    return f'"{name}":[{text}],' if text else ""


def any_value(value: object) -> str:
    """Write an `AnyValue`. Whatever OTLP has no type for is kept as text, and nothing raises."""
    try:
        return _any_value(value, 0)
    except Exception:  # a foreign sequence or mapping may raise anything
        return f'{{"stringValue":{quote(_as_text(value))}}}'


def _any_value(value: object, depth: int) -> str:
    if value is None:
        return "{}"
    if isinstance(value, str):
        return f'{{"stringValue":{quote(value)}}}'
    if isinstance(value, bool):
        return f'{{"boolValue":{"true" if value else "false"}}}'
    if isinstance(value, int) and -INT_LIMIT <= value < INT_LIMIT:
        return f'{{"intValue":"{value:d}"}}'
    if isinstance(value, float):
        return f'{{"doubleValue":{double(value)}}}'
    if isinstance(value, (bytes, bytearray)):
        return f'{{"bytesValue":"{base64.b64encode(value).decode()}"}}'
    if isinstance(value, Mapping) and depth < MAX_DEPTH:
        pairs = (_opening(key, _any_value(item, depth + 1)) + "}" for key, item in value.items())
        return f'{{"kvlistValue":{_values(pairs)}}}'
    if isinstance(value, Sequence) and depth < MAX_DEPTH:
        return f'{{"arrayValue":{_values(_any_value(item, depth + 1) for item in value)}}}'
    return f'{{"stringValue":{quote(value)}}}'


def _values(items: Iterable[str]) -> str:
    text = ",".join(items)
    return f'{{"values":[{text}]}}' if text else "{}"


def _opening(key: object, value: str) -> str:
    return f'{{"key":{quote(key)},"value":{value}'


class _Openings(dict[str, str]):
    """The JSON of an attribute up to what differs from one to the next, by key."""

    def __init__(self, value: str) -> None:
        super().__init__()
        self._value = value

    def __missing__(self, key: str) -> str:
        opening = _opening(key, self._value)
        if len(self) >= MAX_KEYS:
            self.clear()
        if len(key) <= MAX_KEY_LENGTH:
            self[key] = opening
        return opening


_STRING: Final = _Openings('{"stringValue":')
_INT: Final = _Openings('{"intValue":"')
_DOUBLE: Final = _Openings('{"doubleValue":')
_BOOL: Final = _Openings('{"boolValue":')
_OTHER: Final = _Openings("")


def attributes_member(attributes: Mapping[str, Any] | None, name: str = "attributes") -> str:
    """Write a member that lists attributes, or nothing if there are none."""
    if not attributes:
        return ""
    try:
        # The SDK's own mappings walk their items in Python, and copy them in C.
        attributes = attributes.copy()  # type: ignore[attr-defined]
    except AttributeError:
        attributes = dict(attributes)
    items = []
    for key, value in attributes.items():
        kind = type(value)
        if kind is str:
            text = encode_basestring_ascii(value) if value.isascii() else quote(value)
            items.append(f"{_STRING[key]}{text}}}}}")
        elif kind is int and -INT_LIMIT <= value < INT_LIMIT:
            items.append(f'{_INT[key]}{value}"}}}}')
        elif kind is float:
            items.append(f"{_DOUBLE[key]}{double(value)}}}}}")
        elif kind is bool:
            items.append(f"{_BOOL[key]}{'true' if value else 'false'}}}}}")
        else:
            items.append(f"{_OTHER[key]}{any_value(value)}}}")
    return f'"{name}":[{",".join(items)}],'


def _resource(resource: Resource, extra: Mapping[str, Any] | None) -> str:
    attributes = attributes_member({**resource.attributes, **extra} if extra else resource.attributes)
    return f'"resource":{{{attributes[:-1]}}},{text_member("schemaUrl", resource.schema_url)}'


def _scope(scope: InstrumentationScope | None) -> str:
    if scope is None:
        return '"scope":{},'
    optional = text_member("version", scope.version) + attributes_member(scope.attributes)
    return f'"scope":{{{optional}"name":{quote(scope.name)}}},{text_member("schemaUrl", scope.schema_url)}'


class Batch:
    """Encoded items by resource and scope. Equal ones come together, as they do in the official encoder."""

    def __init__(self, items: str, resource_extra: Mapping[str, Any] | None) -> None:
        #: `Spans` or `Metrics`.
        self._name = items
        self._resource_extra = resource_extra
        self._groups: dict[str, dict[str, list[str]]] = {}
        #: By identity, as a resource is dear to hash and to encode. The objects are kept, so no id is reused.
        self._known: dict[tuple[int, int], tuple[list[str], object, object]] = {}
        self._lost = 0
        self._error: Exception | None = None

    def add(
        self, resource: Resource, scope: InstrumentationScope | None, encode: Callable[[_T], str], item: _T
    ) -> None:
        """Encode `item` into its group. One that cannot be encoded is left out."""
        try:
            text = encode(item)
            known = self._known.get((id(resource), id(scope)))
            if known is None:
                scopes = self._groups.setdefault(_resource(resource, self._resource_extra), {})
                known = (scopes.setdefault(_scope(scope), []), resource, scope)
                self._known[id(resource), id(scope)] = known
            known[0].append(text)
        except Exception as error:  # whatever an odd object raises, the rest of the batch goes on
            self._lost += 1
            self._error = error

    def json(self) -> str:
        """Write the whole as one object on one line; warn of what was left out."""
        if self._error is not None:
            _log.warning("%d %s could not be encoded: %r", self._lost, self._name.lower(), self._error)
        lists = (
            f'{{{resource}"scope{self._name}":[{",".join(map(self._scope_list, scopes.items()))}]}}'
            for resource, scopes in self._groups.items()
        )
        return f'{{"resource{self._name}":[{",".join(lists)}]}}'

    def _scope_list(self, group: tuple[str, list[str]]) -> str:
        scope, items = group
        return f'{{{scope}"{self._name.lower()}":[{",".join(items)}]}}'
