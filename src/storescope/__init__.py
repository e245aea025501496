"""See where an MCP store spends its time. `instrument()` does from code what the launcher does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storescope.instrumentation.control import instrument, pause, resume, uninstrument
    from storescope.stores.adapted import adapt

__version__ = "0.1.0"
__all__ = ["__version__", "adapt", "instrument", "pause", "resume", "uninstrument"]


def __getattr__(name: str) -> Any:
    """Load the agent when it is first asked for, so that `storescope.core` alone loads no OpenTelemetry."""
    if name == "adapt":
        from storescope.stores.adapted import adapt

        return adapt
    if name in __all__:
        from storescope.instrumentation import control

        return getattr(control, name)
    raise AttributeError(f"module 'storescope' has no attribute {name!r}")
