"""What is recorded of the arguments and results of tools, and of the texts of errors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from opentelemetry.util.types import AttributeValue

from storescope.core.payloads.digest import NoDigest, call_digest, canonical_arguments
from storescope.core.payloads.payload import text_size
from storescope.instrumentation.capture import captured
from storescope.instrumentation.redaction import Redactor
from storescope.semconv import (
    CALL_DIGEST,
    CALL_DIGEST_SKIPPED,
    GEN_AI_TOOL_CALL_ARGUMENTS,
    GEN_AI_TOOL_CALL_RESULT,
    GEN_AI_TOOL_NAME,
    REQUEST_SIZE,
    SERVICE_NAME,
)
from storescope.settings import Settings

Recorded = dict[str, AttributeValue]


class Payloads:
    """Records what the settings ask for; everything that is text without its secrets."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._redactor = Redactor(settings.redact)
        self._captures_arguments = "arguments" in settings.capture
        self.captures_results = "results" in settings.capture

    def error_text(self, message: str) -> str | None:
        """Return what is shown of an error's text; None where nothing is to be, or there is nothing."""
        return (self._redactor.error_text(message) or None) if self._settings.error_text else None

    def text(self, text: str) -> str:
        """Return a text without its secrets."""
        return self._redactor.text(text)

    def read_arguments(self, arguments: Any, recorded: Recorded) -> list[Any] | None:
        """Record the arguments of a tool before it is called, and return what a digest is made of, if one can be."""
        if arguments is None:
            arguments = {}  # no arguments and none of them are one call
        if self._captures_arguments:
            recorded[GEN_AI_TOOL_CALL_ARGUMENTS] = self._captured(arguments)
        try:
            canonical, size = canonical_arguments(arguments)
        except NoDigest as skipped:
            recorded[CALL_DIGEST_SKIPPED] = skipped.reason
            if (measured := text_size(arguments)) is not None:
                recorded[REQUEST_SIZE] = measured
            return None
        recorded[REQUEST_SIZE] = size
        return canonical

    def read_result(self, response: Any, recorded: Recorded) -> None:
        """Record what came back from a tool, where that is asked for (`captures_results`)."""
        recorded[GEN_AI_TOOL_CALL_RESULT] = self._captured(response)

    def add_digest(self, canonical: list[Any], subject: Mapping[str, Any], recorded: Recorded) -> None:
        """Record the digest of a call, when service and tool are known by the names that every call of them has."""
        recorded[CALL_DIGEST] = call_digest(
            self._key, subject.get(SERVICE_NAME), subject[GEN_AI_TOOL_NAME], canonical
        )

    def _captured(self, payload: Any) -> str:
        return captured(payload, self._settings.capture_limit, self._redactor)

    @cached_property
    def _key(self) -> bytes:
        from storescope.export.digest_key import (
            digest_key,
        )  # with it comes the SDK, which dormant servers do without

        return digest_key(self._settings)
