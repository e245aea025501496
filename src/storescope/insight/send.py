"""Sends recorded telemetry to OTLP/HTTP receivers, and keeps account of what became of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from storescope.insight import words
from storescope.insight.otlp import TRACES, Layout
from storescope.insight.outgoing import Request
from storescope.insight.receiver import Answer, Receiver, Unreachable

JSON: Final = "application/json"
#: Statuses by which a receiver asks to be asked again, and the seconds after which it is.
_AGAIN: Final = frozenset({429, 502, 503, 504})
_PAUSES: Final = (0.5, 2.0, 5.0)
#: Statuses that are about one request; any other failure will be that of the next one as well.
_ABOUT_THE_REQUEST: Final = frozenset({400, 413, 422})
_MAX_REMARKS: Final = 3


@dataclass(slots=True)
class Account:
    """What became of one signal: spans or metric points."""

    layout: Layout
    receiver: Receiver
    sent: int = 0
    #: What the receiver refused of requests that it took otherwise, or with whole requests.
    rejected: int = 0
    #: What was not sent any more, and why not.
    left: int = 0
    stopped: str = ""
    #: Whether it was stopped because the receiver has no place for the signal.
    unwanted: bool = False
    #: What the receiver said of it, each once.
    remarks: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether something was not taken that could have been."""
        return bool(self.rejected or (self.stopped and not self.unwanted))

    def stop(self, request: Request, reason: str) -> None:
        """Send no more of this signal."""
        self.stopped = reason
        self.left += request.count

    def remark(self, text: str) -> None:
        """Keep what the receiver said, if it is new."""
        if text and text not in self.remarks and len(self.remarks) < _MAX_REMARKS:
            self.remarks.append(text)


def send(
    requests: Iterable[Request],
    receivers: Mapping[Layout, Receiver],
    pause: Callable[[float], None] = time.sleep,
) -> list[Account]:
    """Post every request to its signal's receiver, one after the other.

    A signal stops at the first failure that is not about one request; the others go on. A receiver that is busy is
    asked three times more, within 7.5 s.
    """
    accounts = {layout: Account(layout, receiver) for layout, receiver in receivers.items()}
    for request in requests:
        account = accounts[request.layout]
        if account.stopped:
            account.left += request.count
            continue
        try:
            _enter(account, request, _post(account.receiver, request.body, pause))
        except Unreachable as error:
            account.stop(request, str(error))
    return [account for account in accounts.values() if account.sent or account.rejected or account.left]


def _post(receiver: Receiver, body: bytes, pause: Callable[[float], None]) -> Answer:
    for seconds in _PAUSES:
        answer = receiver.post(body, JSON)
        if answer.status not in _AGAIN:
            return answer
        wanted = float(answer.retry_after) if answer.retry_after.isdecimal() else 0.0
        pause(min(max(seconds, wanted), _PAUSES[-1]))
    return receiver.post(body, JSON)


def _enter(account: Account, request: Request, answer: Answer) -> None:
    """Book one answer."""
    signal, address = request.layout.signal, account.receiver.address
    if answer.accepted:
        rejected, message = _partial_success(request.layout, answer.body)
        rejected = min(rejected, request.count)
        account.sent += request.count - rejected
        account.rejected += rejected
        account.remark(message)
    elif answer.takes_no_such_signal:
        account.unwanted = True
        account.stop(request, f"{address} takes no {signal} (HTTP {answer.status})")
    elif answer.status in _ABOUT_THE_REQUEST:
        account.rejected += request.count
        account.remark(f"HTTP {answer.status}{_said(answer.body)}")
    else:
        account.stop(request, f"{address} refuses {signal} (HTTP {answer.status}{_said(answer.body)})")


def _partial_success(layout: Layout, body: bytes) -> tuple[int, str]:
    """Read how much was rejected of a request that was taken, and why."""
    member = "rejectedSpans" if layout is TRACES else "rejectedDataPoints"
    try:
        partial = json.loads(body)["partialSuccess"]
        return int(partial.get(member, 0)), words.plain(str(partial.get("errorMessage", "")))
    except (ValueError, KeyError, TypeError, AttributeError):
        return 0, ""  # an answer may be empty, or in protobuf: then all of it was taken


def _said(body: bytes) -> str:
    """Return the message of an answer that is a `Status` in JSON, or plain text."""
    text = body.decode("utf-8", "replace")
    try:
        text = str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        if text.lstrip().startswith("<"):
            return ""  # a page for people
    shown = words.plain(text.strip(), 200)
    return f": {shown}" if shown else ""
