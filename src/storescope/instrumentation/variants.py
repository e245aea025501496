"""Operations that differ from the usual one: a part of another, and one whose library makes the span."""

from __future__ import annotations

from time import time_ns

from opentelemetry import context as otel_context
from opentelemetry.trace import INVALID_SPAN, Span, set_span_in_context

from storescope.instrumentation.operation import Operation
from storescope.stores import Outcome, Subject


class BorrowingOperation(Operation):
    """An operation to which the library that sends it gives a span itself: that one is enriched."""

    __slots__ = ("_payload", "_started_ns")

    def _open(self, payload: object) -> None:
        self._span = INVALID_SPAN
        self._recording = False
        self.context = otel_context.get_current()
        self._payload = payload
        self._started_ns = time_ns()

    def span_for(self, scope: str, subject: Subject) -> Span | None:
        """Make the library's span, which ends with this operation: when the result is known."""
        if self._span is not INVALID_SPAN:
            return None
        tracer = self.kind.telemetry.library_tracer(scope)
        self._take(tracer.start_span(subject.span_name, None, self.kind.span_kind, subject.span_attributes))
        return self._span

    def _take(self, span: Span) -> None:
        self.context = set_span_in_context(span)
        self._use(span, self._payload)
        span.set_attributes(self._subject.span_attributes)

    def _end(self, outcome: Outcome | None, elapsed: float, response: object, returned: object) -> None:
        if self._span is INVALID_SPAN:  # the library has a way of sending that makes none
            start_span = self.kind.telemetry.tracer.start_span
            self._take(
                start_span(self.span_name, self.context, self.kind.span_kind, start_time=self._started_ns)
            )
        super()._end(outcome, elapsed, response, returned)

    def _rename(self) -> None:
        """Leave the span its library's name."""


class Phase(Operation):
    """A part of the current operation: a child span and no record, for the operation's own has it in it."""

    is_part = True

    __slots__ = ()

    def _end(self, outcome: Outcome | None, elapsed: float, response: object, returned: object) -> None:
        if outcome is not None and isinstance(self._outer, Operation):
            self._outer.know_error(outcome)
        super()._end(outcome, elapsed, response, returned)
