"""The optimizers and what they share: standard library only, never OpenTelemetry."""

from storescope.core.payload import text_size

__all__ = ["text_size"]
