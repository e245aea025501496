"""An OTLP/HTTP receiver, spoken to with the standard library: one request, one answer, in bounded time."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from storescope.insight.model import InsightError

#: Seconds that a receiver may take for each step of a request.
TIMEOUT: Final = 10.0
#: Bytes of an answer that are looked at.
_ANSWER_LIMIT: Final = 64 * 1024


class Unreachable(InsightError):
    """There was no answer; the text says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver said."""

    status: int
    body: bytes = b""
    #: Seconds after which it wants to be asked again; empty, or a date, where it does not say so in seconds.
    retry_after: str = ""

    @property
    def accepted(self) -> bool:
        """Whether it took the request, all of it or a part."""
        return 200 <= self.status < 300

    @property
    def takes_no_such_signal(self) -> bool:
        """Whether it says that it has no place for what it was sent: as Jaeger does of metrics."""
        return self.status in {404, 405, 501}


class _NoRedirect(HTTPRedirectHandler):
    """Leaves a redirection to the caller: followed, it would become a GET that says nothing."""

    def redirect_request(self, *_: Any) -> None:
        """Follow nothing."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where one signal is posted to."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = TIMEOUT
    #: File of certificates to trust in place of the system's.
    certificate: str | None = None

    @property
    def address(self) -> str:
        """The URL as it may be shown, without credentials and query."""
        try:
            parts = urlsplit(self.url)
        except ValueError:  # such as half an IPv6 address
            return self.url.rpartition("@")[2].partition("?")[0]
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))

    def post(self, body: bytes, content_type: str) -> Answer:
        """Post a body. Blocks for `timeout` seconds a step at most. Raises Unreachable where nothing answers."""
        try:
            with self._open(self._request(body, content_type)) as answer:
                return Answer(answer.status, answer.read(_ANSWER_LIMIT))
        except HTTPError as error:
            with error:
                retry_after = error.headers.get("Retry-After", "")
                return Answer(error.code, error.read(_ANSWER_LIMIT), retry_after)
        except (OSError, HTTPException, ValueError) as error:
            raise Unreachable(f"{self.address} {_why(error, self.timeout)}") from error

    def _request(self, body: bytes, content_type: str) -> Request:
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("is no http:// or https:// address")
        credentials, _, host = parts.netloc.rpartition("@")
        url = urlunsplit(parts._replace(netloc=host, fragment=""))
        request = Request(url, body, {"User-Agent": "storescope", **self.headers})  # noqa: S310 - checked above
        request.add_header("Content-Type", content_type)
        if credentials and not request.has_header("Authorization"):
            encoded = base64.b64encode(unquote(credentials).encode()).decode()
            request.add_header("Authorization", f"Basic {encoded}")
        return request

    def _open(self, request: Request) -> Any:
        context = ssl.create_default_context(cafile=self.certificate) if request.type == "https" else None
        return build_opener(_NoRedirect, HTTPSHandler(context=context)).open(request, timeout=self.timeout)


def _why(error: Exception, timeout: float) -> str:
    """Say in words why there was no answer."""
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, TimeoutError):
        return f"did not answer within {timeout:g} s"
    if isinstance(reason, ConnectionRefusedError):
        return "refuses connections: nothing listens there"
    if isinstance(reason, (HTTPException, ConnectionResetError, BrokenPipeError)):
        # A gRPC server takes the connection, and then hangs up or answers in its own protocol.
        return "does not speak HTTP; where this is an OTLP/gRPC port, give the HTTP one, usually 4318"
    if isinstance(reason, ValueError):
        return str(reason) or "is no address"
    if isinstance(reason, OSError) and reason.strerror:
        return f"cannot be reached ({reason.strerror})"
    return f"cannot be reached ({reason})"
