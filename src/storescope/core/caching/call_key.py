"""Keys of calls of Python functions: one for all spellings of a call, made by code generated from the signature."""

from __future__ import annotations

import inspect
import sys
import weakref
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Final, TypeAlias

#: Makes the key of a call of one function from what it is called with; a call that does not fit is a TypeError.
KeyFunction: TypeAlias = Callable[..., tuple[Any, ...]]

#: Types of values that stand for themselves in a key: no two of different types are equal. Others become tuples.
_PLAIN: Final = frozenset({str, int, bytes, type(None)})

_TEXT: Final = frozenset({str})

#: How a parameter becomes an item of the key. `m` marks names of ours: it is longer than any parameter's.
_ELEMENT: Final = "{name} if {m}type({name}) in {m}plain else {m}freeze({name})"
_SELF: Final = "{m}identity({name})"
_VALUE: Final = "{name}"


def compile_key(function: Callable[..., Any], *, frozen: bool = True) -> Callable[[Hashable], KeyFunction]:
    """Return what makes a key function for `function` from the first item of its keys.

    Keys are tuples: that item, then one item for each parameter, defaults filled in, so that `f(1, 2)`, `f(1, b=2)`
    and `f(a=1, b=2)` have one key. Items are hashable and typed (see `freeze`); a parameter called `self` counts by
    identity. With `frozen=False` they are the arguments themselves.

    The signature is the function's own, not that of what it wraps, which may have other defaults. Code for it is
    generated once: 0.1 to 0.3 microseconds a key, a tenth of what `Signature.bind` takes.
    """
    parameters = _parameters(function)
    mark = max((parameter.name for parameter in parameters), key=len, default="") + "_"
    helpers = {"type": type, "plain": _PLAIN, "freeze": freeze, "identity": identity}
    namespace: dict[str, Any] = {mark + name: helper for name, helper in helpers.items()}
    for index, parameter in enumerate(parameters):
        if parameter.default is not parameter.empty:
            namespace[f"{mark}{index}"] = parameter.default
            parameters[index] = parameter.replace(default=_Verbatim(f"{mark}{index}"))
    items = [
        _element(index, parameter, frozen).format(m=mark, name=parameter.name)
        for index, parameter in enumerate(parameters)
    ]
    source = (
        f"def {mark}bind({mark}first):\n"
        f"    def {mark}key{inspect.Signature(parameters)}:\n"
        f"        return ({', '.join([f'{mark}first', *items])},)\n"
        f"    return {mark}key\n"
    )
    exec(source, namespace)  # noqa: S102 - of the signature only names get in, which inspect has checked

    def bind(first: Hashable) -> KeyFunction:
        key: Any = namespace[f"{mark}bind"](first)
        key.__qualname__ = getattr(function, "__qualname__", type(function).__qualname__)  # its errors say it
        return key  # type: ignore[no-any-return]

    return bind


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters of a function without their annotations, of which some may stand for nothing."""
    unread: dict[str, Any] = {}
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        unread = {"annotation_format": Format.STRING}
    try:
        signature = inspect.signature(function, follow_wrapped=False, **unread)
    except ValueError:  # some functions written in C have none
        signature = inspect.signature(lambda *args, **kwargs: None)
    return [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]


class _Verbatim:
    """A default that a signature shows as the name that has it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


def _element(index: int, parameter: inspect.Parameter, frozen: bool) -> str:
    if not frozen:
        return _VALUE
    return _SELF if index == 0 and parameter.name == "self" else _ELEMENT


def freeze(value: Any) -> Hashable:
    """Return what stands for a value in a key: equal for equal values of one type, at every depth.

    1, 1.0 and True are three values, and so are [1] and (1,); every NaN is one. Dicts and sets have no order. What
    compares by identity is held by a weak reference, so that a key keeps no object alive and never matches another
    one; what has a hash of its own is compared by it; any other object counts as what `copy.copy` would take of it.

    Raises whatever hashing or copying the value raises; TypeError, mostly, and RecursionError for what contains
    itself.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value  # type: ignore[no-any-return]
    if (contents := _CONTENTS.get(kind)) is not None:
        return kind, contents(value)
    if _compares_by_identity(kind):
        return identity(value)
    if kind.__eq__ == _EQUAL_TUPLES:  # a named tuple
        return kind, _items(value)
    try:
        hash(value)
    except (TypeError, ValueError):  # a memoryview that can be written to raises ValueError
        return kind, _parts(value)
    return kind, value


def identity(value: Any) -> Hashable:
    """Return what stands for this very object in a key: a weak reference.

    What cannot be weakly referenced (an instance with `__slots__` alone, a number) is compared as any other value
    and held as long as the key.
    """
    kind = type(value)
    try:
        return weakref.ref(value) if _compares_by_identity(kind) else _Identity(value)
    except TypeError:
        return (kind, value) if _compares_by_identity(kind) else freeze(value)


class _Identity(weakref.ref[Any]):
    """A weak reference that is equal to others of the same object, whatever that object says of equality."""

    __slots__ = ("_hash",)
    _hash: int

    def __new__(cls, value: Any) -> _Identity:  # noqa: PYI034 - nothing is made of it
        reference = super().__new__(cls, value)
        reference._hash = id(value)
        return reference

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, _Identity) and (value := self()) is not None and value is other()


_EQUAL_TUPLES: Final[Any] = tuple.__eq__
_BY_IDENTITY: Final[tuple[Any, Any]] = (object.__hash__, object.__eq__)


def _compares_by_identity(kind: type) -> bool:
    return (kind.__hash__, kind.__eq__) == _BY_IDENTITY


def _float(value: float) -> Hashable:
    return (
        value if value == value and value else repr(value)
    )  # NaN is unequal to itself, 0.0 is equal to -0.0


def _items(value: Any) -> Hashable:
    return tuple(map(freeze, value))


def _members(value: Any) -> Hashable:
    return frozenset(map(freeze, value))


def _mapping(value: dict[Any, Any]) -> Hashable:
    if _TEXT.issuperset(map(type, value)):  # of tuples alone: a cache needs no lock for these
        return tuple([(name, freeze(value[name])) for name in sorted(value)])
    return frozenset([(freeze(name), freeze(item)) for name, item in value.items()])


def _parts(value: Any) -> Hashable:
    """Return what an object is copied from: its constructor's arguments, its state, its items."""
    reduced: tuple[Any, ...] | str = value.__reduce_ex__(4)
    return _items([tuple(part) if isinstance(part, Iterator) else part for part in reduced])


#: What stands for a value of exactly this type, beside the type.
_CONTENTS: Final[dict[type, Callable[[Any], Hashable]]] = {
    bool: bool,
    float: _float,
    tuple: _items,
    list: _items,
    dict: _mapping,
    set: _members,
    frozenset: _members,
    bytearray: bytes,
}
