"""What is put around a store's callables, by what each is and how it hands over its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from storescope.instrumentation.operation import OperationKind
from storescope.instrumentation.telemetry import Telemetry
from storescope.instrumentation.wrappers import roles, styles
from storescope.instrumentation.wrappers.observer import Observer
from storescope.instrumentation.wrappers.styles import Wrapper
from storescope.stores import PatchTarget, Role, StoreAdapter, Style

_BY_STYLE: Final[Mapping[Style, Callable[[Observer], Wrapper]]] = {
    Style.SYNC: styles.sync,
    Style.COROUTINE: styles.coroutine,
    Style.FUTURE: styles.future,
}
_BY_ROLE: Final[Mapping[Role, Callable[[Observer], Wrapper]]] = {
    Role.SESSION: roles.session,
    Role.ENTER: roles.enter,
    Role.EXIT: roles.leave,
    Role.SPAN: roles.lent_span,
    Role.BRIDGE: roles.bridge,
    Role.TRACER: roles.quiet_tracer,
}


def make_wrapper(telemetry: Telemetry, adapter: StoreAdapter, target: PatchTarget) -> Wrapper:
    """Return what wrapt puts around a target."""
    observer = Observer(OperationKind(telemetry, adapter, target))
    return _BY_ROLE.get(target.role, _BY_STYLE[target.style or Style.SYNC])(observer)
