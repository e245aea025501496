"""What a receiver does not take is kept in the local file, and nothing waits for it once the program has ended."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from opentelemetry import metrics
from opentelemetry.instrumentation.utils import is_instrumentation_enabled, suppress_instrumentation
from opentelemetry.sdk.metrics import Counter, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader, MetricsData
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from receivers import Receiver, grpc_receiver, hanging_receiver, http_receiver, refused_port

from storescope import semconv
from storescope.export.budget import ExitBudget
from storescope.export.delivery import LocalDelivery, Once, OtlpDelivery
from storescope.export.destination import Protocol, Signal, choose
from storescope.export.fallback import (
    BoundedMetricReader,
    BoundedSpanProcessor,
    FallbackMetricExporter,
    FallbackSpanExporter,
)
from storescope.export.file import FileMetricExporter, FileSpanExporter
from storescope.export.otlp import build_exporter
from storescope.settings import Settings


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Workshop:
    """Deliveries of both signals to one receiver, with their files in a folder of their own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings = Settings(directory=folder / "telemetry")
        self.budget = ExitBudget(self.settings.exit_timeout, self.settings.flush_timeout)
        self.say_kept = Once()
        self.made: list[OtlpDelivery] = []
        self._monkeypatch = monkeypatch

    def delivery(
        self, receiver: Receiver, signal: Signal = Signal.TRACES, protocol: Protocol = Protocol.HTTP
    ) -> OtlpDelivery:
        """Deliver to a receiver; a batch that fails is given up in less than a second."""
        otel = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol.value,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "0.5",
        }
        for name, value in otel.items():
            self._monkeypatch.setenv(name, value)
        (destination,) = choose(otel, signals=[signal])
        made = OtlpDelivery(
            destination,
            partial(build_exporter, destination, otel),
            self.local(signal),
            self.budget,
            self.say_kept,
        )
        self.made.append(made)
        return made

    def local(self, signal: Signal) -> LocalDelivery:
        file = (
            FileSpanExporter(self.settings) if signal is Signal.TRACES else FileMetricExporter(self.settings)
        )
        return LocalDelivery(signal, file, Once())

    def kept(self) -> list[tuple[str, bool]]:
        """Return the spans in the file, and whether each is marked as unconfirmed."""
        return [
            (span["name"], semconv.EXPORT_UNCONFIRMED in json.dumps(batch))
            for path in sorted(self.settings.directory.glob("traces-*.jsonl"))
            for line in path.read_text("utf-8").splitlines()
            for batch in json.loads(line)["resourceSpans"]
            for scope in batch["scopeSpans"]
            for span in scope["spans"]
        ]

    def kept_metrics(self) -> str:
        return "".join(path.read_text("utf-8") for path in self.settings.directory.glob("metrics-*.jsonl"))


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workshop]:
    workshop = Workshop(tmp_path, monkeypatch)
    yield workshop
    for made in workshop.made:
        made.close()


def spans(*names: str) -> list[ReadableSpan]:
    """Return finished spans."""
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    for name in names:
        provider.get_tracer("test").start_span(name).end()
    return list(memory.get_finished_spans())


def measurements() -> MetricsData:
    """Return a metric with one point."""
    reader = InMemoryMetricReader()
    MeterProvider([reader], shutdown_on_exit=False).get_meter("test").create_counter("calls").add(1)
    data = reader.get_metrics_data()
    assert data is not None
    return data


def ours(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name.startswith("storescope")]


@pytest.mark.parametrize(
    ("make", "protocol"), [(http_receiver, Protocol.HTTP), (grpc_receiver, Protocol.GRPC)]
)
def test_what_a_receiver_takes_is_not_kept(
    make: Callable[[], Any], protocol: Protocol, workshop: Workshop
) -> None:
    """Over HTTP and gRPC, traces and metrics."""
    with make() as receiver:
        assert workshop.delivery(receiver, Signal.TRACES, protocol).deliver(spans("a", "b"))
        assert workshop.delivery(receiver, Signal.METRICS, protocol).deliver(measurements())
    assert receiver.spans == ["a", "b"]
    assert receiver.metrics == ["calls"]
    assert not workshop.settings.directory.exists()


@pytest.mark.parametrize("status", [404, 405])
def test_a_receiver_that_has_no_place_for_a_signal_is_not_asked_again(
    status: int, workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    """The signal goes to the file from then on, the refused batch included, and one line says so."""
    with http_receiver(lambda signal, earlier: status) as receiver:
        delivery = workshop.delivery(receiver)
        assert delivery.deliver(spans("refused"))
        assert delivery.deliver(spans("later"))
    assert receiver.requests == ["traces"]
    assert workshop.kept() == [("refused", False), ("later", False)]
    (line,) = [record.message for record in caplog.records]
    assert line.startswith(
        f"storescope: {receiver.endpoint}/v1/traces takes no traces (HTTP {status}); from now on they go to "
    )
    assert str(workshop.settings.directory) in line


def test_one_signal_is_refused_without_the_other(
    workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    """Plain Jaeger takes traces and answers metrics with 404."""
    with http_receiver(lambda signal, earlier: 404 if signal == "metrics" else 200) as receiver:
        traces, measured = workshop.delivery(receiver), workshop.delivery(receiver, Signal.METRICS)
        assert measured.deliver(measurements())
        assert traces.deliver(spans("a"))
    assert receiver.spans == ["a"]
    assert "calls" in workshop.kept_metrics()
    assert not workshop.kept()
    assert len(caplog.records) == 1


def test_unimplemented_is_a_refusal(workshop: Workshop, caplog: pytest.LogCaptureFixture) -> None:
    """Plain Jaeger's answer to metrics over gRPC."""
    with grpc_receiver(frozenset({"metrics"})) as receiver:
        traces = workshop.delivery(receiver, Signal.TRACES, Protocol.GRPC)
        measured = workshop.delivery(receiver, Signal.METRICS, Protocol.GRPC)
        assert measured.deliver(measurements())
        assert measured.deliver(measurements())
        assert traces.deliver(spans("a"))
    assert receiver.requests == ["metrics", "traces"]
    assert workshop.kept_metrics().count('"calls"') == 2
    (line,) = [record.message for record in caplog.records]
    assert line.startswith(f"storescope: {receiver.endpoint} takes no metrics (gRPC UNIMPLEMENTED)")


def test_unimplemented_is_noticed_after_an_outage_too(workshop: Workshop) -> None:
    """Newer exporters make a new channel when the receiver was away."""
    with grpc_receiver(frozenset({"traces"})) as receiver:
        delivery = workshop.delivery(receiver, Signal.TRACES, Protocol.GRPC)
        exporter: Any = delivery.exporter
        if hasattr(exporter, "_initialize_channel_and_stub"):
            exporter._channel.close()
            exporter._initialize_channel_and_stub()
        assert delivery.deliver(spans("a"))
        assert delivery.deliver(spans("b"))
    assert receiver.requests == ["traces"]


def test_a_gone_channel_of_the_exporter_only_costs_the_notice(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release whose exporter is made otherwise has a refused batch go to the file like any that fails."""
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    made = OTLPSpanExporter.__init__

    def forget_stub(exporter: Any, *args: Any, **kwargs: Any) -> None:
        made(exporter, *args, **kwargs)
        del exporter._stub

    monkeypatch.setattr(OTLPSpanExporter, "__init__", forget_stub)
    with grpc_receiver(frozenset({"traces"})) as receiver:
        assert workshop.delivery(receiver, Signal.TRACES, Protocol.GRPC).deliver(spans("a"))
    assert workshop.kept() == [("a", True)]


def test_a_batch_that_the_exporter_gives_up_is_kept_and_the_next_one_is_sent(
    workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    """An outage switches nothing, and is told of once."""
    with http_receiver(lambda signal, earlier: 400 if earlier < 2 else 200) as receiver:
        delivery = workshop.delivery(receiver)
        for name in ("first", "second", "third"):
            assert delivery.deliver(spans(name))
    assert receiver.spans == ["third"]
    assert workshop.kept() == [("first", True), ("second", True)]
    (line,) = ours(caplog)
    assert line.startswith(f"storescope: spans not sent to {receiver.endpoint}/v1/traces (failed); kept in ")


def test_nobody_listening_while_the_program_runs_is_an_outage(workshop: Workshop) -> None:
    """Whatever the stock exporter makes of it, an exception or a failure."""
    with refused_port() as receiver:
        assert workshop.delivery(receiver).deliver(spans("a"))
    assert workshop.kept() == [("a", True)]


def test_a_receiver_that_recovers_within_the_timeout_loses_nothing(workshop: Workshop) -> None:
    """The stock exporter tries again, for as long as its timeout lets it."""
    with http_receiver(lambda signal, earlier: 503 if earlier == 0 else 200) as receiver:
        endpoint = f"{receiver.endpoint}/v1/traces"
        (destination,) = choose({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": endpoint}, signals=[Signal.TRACES])
        local = workshop.local(Signal.TRACES)
        build = partial(build_exporter, destination, {})
        delivery = OtlpDelivery(destination, build, local, workshop.budget, Once())
        assert delivery.deliver(spans("a"))
        delivery.close()
    assert receiver.spans == ["a"]
    assert receiver.requests == ["traces", "traces"]
    assert not workshop.kept()


@pytest.mark.parametrize(("otel", "seconds"), [({}, 60), ({"OTEL_EXPORTER_OTLP_TIMEOUT": "7"}, 7)])
def test_the_timeout_is_a_minute_unless_the_user_set_one(
    otel: dict[str, str], seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stock 10 s lose what a receiver is away for longer."""
    seen: list[float] = []

    def send(
        session: requests.Session, request: requests.PreparedRequest, **options: Any
    ) -> requests.Response:
        seen.append(options["timeout"])
        answer = requests.Response()
        answer.status_code = 200
        return answer

    monkeypatch.setattr(requests.Session, "send", send)
    for name, value in otel.items():
        monkeypatch.setenv(name, value)
    (destination,) = choose({"OTEL_TRACES_EXPORTER": "otlp", **otel}, signals=[Signal.TRACES])
    exporter = build_exporter(destination, otel)
    assert exporter.export(spans("a")) is SpanExportResult.SUCCESS
    exporter.shutdown()
    assert seen == [pytest.approx(seconds, abs=1)]


def test_what_even_the_file_refuses_is_counted(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By signal, and one line says why."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    monkeypatch.setattr(metrics, "get_meter", lambda name, **_: provider.get_meter(name))
    workshop.settings.directory.write_text("in the way")
    with http_receiver(lambda signal, earlier: 404) as receiver:
        delivery = workshop.delivery(receiver)
        assert not delivery.deliver(spans("a", "b"))
        assert not delivery.deliver(spans("c"))
        assert not workshop.local(Signal.METRICS).deliver(measurements())
    data = reader.get_metrics_data()
    assert data is not None
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    assert metric.name == "storescope.telemetry.dropped"
    counts = {point.attributes["storescope.signal"]: point.value for point in metric.data.data_points}
    assert counts == {"traces": 3, "metrics": 1}
    assert len([line for line in ours(caplog) if "not written" in line]) == 1


def test_after_the_end_a_signal_is_kept_once_the_receiver_did_not_answer(
    workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    """What was under way is unconfirmed; what comes later, and the other signal, ask nobody; one warning."""
    workshop.budget = ExitBudget(0.2, 10)
    with hanging_receiver() as receiver:
        traces, measured = workshop.delivery(receiver), workshop.delivery(receiver, Signal.METRICS)
        workshop.budget.begin()
        started = time.monotonic()
        assert traces.deliver(spans("asked"))
        assert traces.deliver(spans("queued"))
        assert measured.deliver(measurements())
        assert time.monotonic() - started < 2
    assert workshop.kept() == [("asked", True), ("queued", False)]
    assert "calls" in workshop.kept_metrics()
    assert semconv.EXPORT_UNCONFIRMED not in workshop.kept_metrics()
    assert len(ours(caplog)) == 1


def test_an_export_that_hangs_already_is_released_when_the_program_ends(workshop: Workshop) -> None:
    """Whoever waits for it notices that the budget has begun."""
    workshop.budget = ExitBudget(0.1, 10)
    with hanging_receiver() as receiver:
        delivery = workshop.delivery(receiver)
        waiting = threading.Thread(target=delivery.deliver, args=[spans("a")])
        waiting.start()
        time.sleep(0.1)
        assert waiting.is_alive()
        workshop.budget.begin()
        waiting.join(5)
        assert not waiting.is_alive()
    assert workshop.kept() == [("a", True)]


def test_exports_run_in_the_context_of_their_caller(workshop: Workshop) -> None:
    """The SDK switches instrumentation off around an export, and an exporter's requests must not be traced."""
    seen: list[bool] = []

    class Exporter:
        def export(self, batch: object) -> SpanExportResult:
            seen.append(is_instrumentation_enabled())
            return SpanExportResult.SUCCESS

        def shutdown(self) -> None:
            pass

    (destination,) = choose({"OTEL_TRACES_EXPORTER": "otlp"}, signals=[Signal.TRACES])
    local = workshop.local(Signal.TRACES)
    delivery = OtlpDelivery(destination, Exporter, local, workshop.budget, Once())
    with suppress_instrumentation():
        delivery.deliver(spans("a"))
    delivery.deliver(spans("b"))
    delivery.close()
    assert seen == [False, True]


def test_both_signals_export_at_once(workshop: Workshop) -> None:
    """One that hangs does not hold up the other."""
    workshop.budget = ExitBudget(0.1, 10)
    with hanging_receiver() as silent, http_receiver() as receiver:
        traces, measured = workshop.delivery(silent), workshop.delivery(receiver, Signal.METRICS)
        waiting = threading.Thread(target=traces.deliver, args=[spans("a")])
        waiting.start()
        assert measured.deliver(measurements())
        assert receiver.metrics == ["calls"]
        workshop.budget.begin()
        waiting.join(5)


def test_shutting_a_provider_down_early_is_bounded_too_and_leaves_the_rest_as_it_was(
    workshop: Workshop,
) -> None:
    """The application may end telemetry before it ends itself."""
    workshop.budget = ExitBudget(0.2, 10)
    with hanging_receiver() as silent, http_receiver() as receiver:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(BoundedSpanProcessor(workshop.delivery(silent), workshop.budget))
        provider.get_tracer("test").start_span("a").end()
        started = time.monotonic()
        provider.shutdown()
        assert time.monotonic() - started < 2
        assert workshop.delivery(receiver, Signal.METRICS).deliver(measurements())
    assert workshop.kept() == [("a", True)]
    assert receiver.metrics == ["calls"]


def test_spans_of_a_refused_signal_are_written_as_soon_as_those_of_the_file(workshop: Workshop) -> None:
    """Within the second, not after the five that a receiver's batch may take."""
    with http_receiver(lambda signal, earlier: 404) as receiver:
        processor = BoundedSpanProcessor(workshop.delivery(receiver), workshop.budget)
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(processor)
        provider.get_tracer("test").start_span("refused").end()
        processor.force_flush()
        # The wait under way was begun with the old delay; a full batch ends it.
        processor._batch_processor._worker_awaken.set()
        time.sleep(0.1)
        provider.get_tracer("test").start_span("later").end()
        deadline = time.monotonic() + 3
        while len(workshop.kept()) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [name for name, _ in workshop.kept()] == ["refused", "later"]
        provider.shutdown()


def test_metrics_keep_the_temporality_that_the_exporter_prefers(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE` holds for what is sent and for what is kept."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "DELTA")
    with refused_port() as receiver:
        delivery = workshop.delivery(receiver, Signal.METRICS)
        exporter = FallbackMetricExporter(delivery)
        reader = BoundedMetricReader(exporter, workshop.budget)
        provider = MeterProvider([reader], shutdown_on_exit=False)
        provider.get_meter("test").create_counter("calls").add(1)
        provider.shutdown()
    assert exporter._preferred_temporality[Counter] is AggregationTemporality.DELTA
    assert '"aggregationTemporality":1' in workshop.kept_metrics()


def test_a_delivery_shows_its_state(workshop: Workshop) -> None:
    """For whoever debugs."""
    with http_receiver(lambda signal, earlier: 404) as receiver:
        delivery = workshop.delivery(receiver)
        assert repr(delivery) == f"<OtlpDelivery of traces to {receiver.endpoint}/v1/traces: sending>"
        delivery.deliver(spans("a"))
        assert repr(delivery).endswith(": switched to the file>")
        assert repr(delivery.local) == f"<LocalDelivery of traces in {delivery.local.name}>"


def test_an_exporter_says_whether_its_batch_is_safe(workshop: Workshop) -> None:
    """In the SDK's own words."""
    exporter = FallbackSpanExporter(workshop.local(Signal.TRACES))
    assert exporter.export(spans("a")) is SpanExportResult.SUCCESS
    assert exporter.force_flush()
    exporter.shutdown()


def test_credentials_of_an_endpoint_are_not_shown(
    workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in warnings nor in the closing line."""
    with http_receiver(lambda signal, earlier: 404 if earlier else 200) as receiver:
        endpoint = receiver.endpoint.replace("//", "//user:secret@") + "/v1/traces?token=secret"
        (destination,) = choose({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": endpoint}, signals=[Signal.TRACES])
        build, local = partial(build_exporter, destination, {}), workshop.local(Signal.TRACES)
        delivery = OtlpDelivery(destination, build, local, workshop.budget, Once())
        delivery.deliver(spans("a"))
        delivery.deliver(spans("b"))
        delivery.close()
        assert delivery.whereabouts().endpoint == receiver.endpoint
    assert "secret" not in caplog.text + repr(delivery)


class TestBudget:
    """How long exports may take once the program has ended."""

    def setup_method(self) -> None:
        self.clock = Clock()
        self.budget = ExitBudget(1, 10, clock=self.clock)

    def test_there_is_no_limit_while_the_program_runs(self) -> None:
        """However often something is acknowledged."""
        self.budget.acknowledged()
        assert self.budget.remaining() is None
        assert not self.budget.exhausted
        assert repr(self.budget) == "<ExitBudget not begun>"

    def test_it_leaves_a_quarter_for_writing_and_for_the_interpreter(self) -> None:
        """So that the program as a whole ends within the timeout."""
        self.budget.begin()
        assert self.budget.remaining() == pytest.approx(0.75)
        assert repr(self.budget) == "<ExitBudget 0.750 s left>"

    def test_it_begins_once(self) -> None:
        """The end of the program is where it was."""
        self.budget.begin()
        self.clock.now += 0.5
        self.budget.begin()
        assert self.budget.remaining() == pytest.approx(0.25)

    def test_what_is_acknowledged_prolongs_it_up_to_the_flush_timeout(self) -> None:
        """As long again from each batch, and no longer than that in all."""
        self.budget.begin()
        for _ in range(100):
            self.clock.now += 0.5
            self.budget.acknowledged()
        assert self.budget.exhausted
        assert self.clock.now == 150

    def test_what_comes_too_late_does_not_prolong_it(self) -> None:
        """Whoever was given up stays given up."""
        self.budget.begin()
        self.clock.now += 2
        self.budget.acknowledged()
        assert self.budget.exhausted

    def test_windows_close_and_the_end_does_not(self) -> None:
        """Only the end of the program is for good."""
        with self.budget.window(), self.budget.window():
            assert self.budget.remaining() == pytest.approx(0.75)
        assert self.budget.remaining() is None
        with self.budget.window():
            self.budget.begin()
        assert self.budget.remaining() == pytest.approx(0.75)

    def test_a_timeout_of_zero_waits_for_nothing(self) -> None:
        """Everything goes to the file."""
        budget = ExitBudget(0, 10, clock=self.clock)
        budget.begin()
        assert budget.exhausted
