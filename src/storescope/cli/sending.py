"""What `storescope send` does: chooses the receivers, sends, and says what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from storescope.cli.receivers import receiver_of
from storescope.export.destination import Destination, Protocol, Signal, otlp_destination
from storescope.insight import InsightError, Source, words
from storescope.insight.otlp import METRICS, TRACES, Layout
from storescope.insight.outgoing import PATTERNS, requests
from storescope.insight.receiver import TIMEOUT, Receiver
from storescope.insight.send import Account, send

_SIGNALS: Final = {TRACES: Signal.TRACES, METRICS: Signal.METRICS}
_ITEMS: Final = {TRACES: "span", METRICS: "metric point"}
_HTTP_PORT: Final = 4318


class Sending:
    """Telemetry of a file or folder on its way to where the environment, or `endpoint`, says."""

    def __init__(self, path: Path, endpoint: str | None, otel: Mapping[str, str]) -> None:
        """Send. Raises InsightError where nothing can be sent at all."""
        receivers = dict(_receivers(endpoint, otel))
        self.source = Source.at(path, PATTERNS)
        self._accounts = send(requests(self.source), receivers)

    def report(self) -> Iterator[str]:
        """Say what was sent where, and what has no place there."""
        for account in self._accounts:
            if account.sent:
                yield f"Sent {_count(account, account.sent)} to {account.receiver.address}"
                if account.remarks and not account.rejected:
                    yield f"  which says: {'; '.join(account.remarks)}"
            if account.unwanted:
                yield f"{account.stopped}: {_count(account, account.left)} not sent"
        files = self.source.files
        where = str(files[0]) if len(files) == 1 else f"{len(files)} files in {files[0].parent}"
        yield f"Read {where}; nothing was removed."

    def failure(self) -> str:
        """Say what was not sent that should have been; empty where all was sent that can be."""
        said = [text for account in self._accounts if account.failed for text in _failures(account)]
        if not said and not any(account.sent for account in self._accounts):
            said.append("nothing was sent. Give the address of an OTLP/HTTP receiver: --endpoint URL")
        return "\n".join(said)


def _failures(account: Account) -> Iterator[str]:
    if account.stopped and not account.unwanted:
        yield f"{account.stopped}: {_count(account, account.left)} not sent."
    if account.rejected:
        reasons = f": {'; '.join(account.remarks)}" if account.remarks else "."
        yield f"{account.receiver.address} rejected {_count(account, account.rejected)}{reasons}"


def _count(account: Account, number: int) -> str:
    return words.plural(number, _ITEMS[account.layout])


def _receivers(endpoint: str | None, otel: Mapping[str, str]) -> Iterator[tuple[Layout, Receiver]]:
    asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint} if endpoint else otel
    for layout, signal in _SIGNALS.items():
        destination = otlp_destination(signal, asked, "it is sent")
        if destination.protocol is Protocol.GRPC:
            raise InsightError(
                f"{destination.address} is spoken to with gRPC, and recorded telemetry is sent over HTTP.\n"
                f"Give the receiver's HTTP port: --endpoint {_with_http_port(destination)}"
            )
        yield layout, receiver_of(destination, otel, TIMEOUT)


def _with_http_port(destination: Destination) -> str:
    address = destination.address
    parts = urlsplit(address if "//" in address else f"http://{address}")
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{_HTTP_PORT}"
