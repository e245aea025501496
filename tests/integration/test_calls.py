"""What the settings and the application itself add to calls: digests, payloads, hooks, exclusions, blocked loops."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from integration.harness import STDIO_SERVER, Runner, Span, named
from integration.recording import Recorder
from integration.stores import SET_UP_A_STORE, Lab, Lab1, run_async
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from secrets_corpus import SECRETS, payloads

import storescope
from storescope import notices, semconv
from storescope.instrumentation import StorescopeInstrumentor
from storescope.instrumentation.telemetry import MAX_NAMES, Telemetry

Configure = Callable[..., None]

mcpstore1 = pytest.mark.mcpstore1
mcpstore2 = pytest.mark.mcpstore2


LabT = TypeVar("LabT", Lab, Lab1)


@contextlib.contextmanager
def observed(laboratory: Callable[[Path], LabT], folder: Path) -> Iterator[tuple[LabT, Recorder]]:
    """Observe a store, as the settings of this moment say; what its set-up recorded is forgotten."""
    with Recorder() as recorder:
        lab = laboratory(folder)
        recorder.clear()
        yield lab, recorder
        lab.close()


def calls(recorder: Recorder) -> list[Span]:
    return [span for span in recorder.spans() if span.kind == "CLIENT"]


def digests(recorder: Recorder) -> list[Any]:
    return [span.attributes.get(semconv.CALL_DIGEST) for span in calls(recorder)]


# Digests.


def check_digests(call: Callable[..., Any], recorder: Recorder) -> None:
    for arguments in ({"text": "hi", "n": 1}, {"n": 1, "text": "hi"}, {"text": "ho"}):
        call("lab_echo" if arguments["text"] == "hi" else "echo", arguments)
    first, again, other = digests(recorder)
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert first == again != other


@mcpstore2
def test_equal_calls_have_equal_digests(lab: Lab, recorder: Recorder) -> None:
    """The digest is the same for the same service, tool and arguments, whatever their order, and else another."""
    check_digests(lab.context.call_tool, recorder)


@mcpstore1
def test_equal_calls_of_1x_have_equal_digests(lab1: Lab1, recorder: Recorder) -> None:
    """The same with mcpstore 1.5.x."""
    check_digests(lab1.context.call_tool, recorder)


@mcpstore2
def test_a_digest_is_of_the_name_on_the_wire(lab: Lab, recorder: Recorder, tmp_path: Path) -> None:
    """A tool has one digest by each of its names and faces, an async one that was never called before among them."""
    lab.context.call_tool("lab_echo", {"text": "hi"})
    lab.context.call_tool("echo", {"text": "hi"})
    lab.context.find_tool("lab_echo").call({"text": "hi"})

    async def scenario(store: Any, context: Any) -> None:
        await context.call_tool("lab_echo", {"text": "hi"})

    run_async(tmp_path, scenario)
    assert len(set(digests(recorder))) == 1
    assert len(digests(recorder)) == 4


@mcpstore2
def test_arguments_that_change_during_a_call_do_not_change_its_digest(
    lab: Lab, recorder: Recorder, tmp_path: Path
) -> None:
    """The digest is of what the call was given, not of what became of it."""

    async def scenario(store: Any, context: Any) -> None:
        await context.call_tool("lab_echo", {"text": "hi"})
        arguments = {"text": "hi"}
        call = context.call_tool("lab_echo", arguments)
        arguments["text"] = "ho"
        await call

    run_async(tmp_path, scenario)
    first, second = digests(recorder)
    assert first == second


@mcpstore2
def test_arguments_without_a_digest_say_why(lab: Lab, recorder: Recorder) -> None:
    """Above 64 KB there is no digest, and the span has the reason."""
    lab.context.call_tool("lab_echo", {"text": "x" * 70_000})
    (span,) = calls(recorder)
    assert semconv.CALL_DIGEST not in span.attributes
    assert span.attributes[semconv.CALL_DIGEST_SKIPPED] == "size"


@mcpstore2
def test_programs_that_share_a_folder_share_the_key(runner: Runner) -> None:
    """The same call in two runs has the same digest, and another one under another key."""
    program = SET_UP_A_STORE + 'store.call_tool("lab_echo", {"text": "hi"})'
    found = [
        named(runner.run(program, env=env).check().spans()[-1:], "tools/call echo").attributes[
            semconv.CALL_DIGEST
        ]
        for env in ({}, {}, {"STORESCOPE_DIGEST_KEY": "of the shop"})
    ]
    assert found[0] == found[1] != found[2]
    assert (runner.directory / "digest.key").stat().st_mode & 0o777 == 0o600


# Payloads.


def check_capture(call: Callable[..., Any], recorder: Recorder) -> None:
    call("lab_echo", {"text": "hi", "password": "hunter2"})
    (span,) = calls(recorder)
    assert span.attributes[semconv.GEN_AI_TOOL_CALL_ARGUMENTS] == '{"text": "hi", "password": "[redacted]"}'
    assert span.attributes[semconv.GEN_AI_TOOL_CALL_RESULT] == '"hi"'


@mcpstore2
def test_payloads_are_recorded_where_they_are_asked_for(tmp_path: Path, configure: Configure) -> None:
    """`STORESCOPE_CAPTURE` records arguments and results, without their secrets."""
    configure(STORESCOPE_CAPTURE="arguments,results")
    with observed(Lab, tmp_path) as (lab, recorder):
        check_capture(lab.context.call_tool, recorder)


@mcpstore1
def test_payloads_of_1x_are_recorded_where_they_are_asked_for(tmp_path: Path, configure: Configure) -> None:
    """The same with mcpstore 1.5.x."""
    configure(STORESCOPE_CAPTURE="arguments,results")
    with observed(Lab1, tmp_path) as (lab1, recorder):
        check_capture(lab1.context.call_tool, recorder)


@mcpstore2
def test_one_of_them_is_recorded_alone_and_cut(tmp_path: Path, configure: Configure) -> None:
    """What is not asked for is left off; what is too long is cut at a character."""
    configure(STORESCOPE_CAPTURE="results", STORESCOPE_CAPTURE_LIMIT="7")
    with observed(Lab, tmp_path) as (lab, recorder):
        lab.context.call_tool("lab_echo", {"text": "ééééé"})
        (span,) = calls(recorder)
    assert semconv.GEN_AI_TOOL_CALL_ARGUMENTS not in span.attributes
    assert span.attributes[semconv.GEN_AI_TOOL_CALL_RESULT] == '"ééé'


SECRET_CALLS = f"""
{SET_UP_A_STORE}
import json

for payload in json.load(open("payloads.json")):
    store.call_tool("lab_echo", {{"text": json.dumps(payload), "payload": payload}})
    store.call_tool("lab_fail_with", {{"text": json.dumps(payload)}})
"""


@mcpstore2
def test_no_secret_of_the_corpus_is_written(runner: Runner) -> None:
    """Secrets in arguments, results and error texts reach no span and no file, with payloads recorded as well."""
    chosen = [payload for secret in SECRETS for payload in list(payloads(secret))[:3]]
    chosen = [payload for payload in chosen if _is_json(payload)]
    runner.folder.joinpath("payloads.json").write_text(json.dumps(chosen), "utf-8")
    finished = runner.run(SECRET_CALLS, env={"STORESCOPE_CAPTURE": "arguments,results"}).check()

    spans = [span for span in finished.spans() if span.name == "tools/call echo"]
    assert len(spans) == len(chosen)
    assert all("[redacted]" in span.attributes[semconv.GEN_AI_TOOL_CALL_ARGUMENTS] for span in spans)
    failed = [span for span in finished.spans() if span.name == "tools/call fail_with"]
    assert {span.status for span in failed} == {"ERROR"}
    assert any("[redacted]" in span.message for span in failed)
    written = finished.written() + finished.stderr
    assert [secret.name for secret in SECRETS if secret.leaks_into(written)] == []


def _is_json(payload: Any) -> bool:
    try:
        json.dumps(payload)
    except (TypeError, ValueError):
        return False
    return True


@mcpstore2
def test_the_users_pattern_is_taken_out_too(tmp_path: Path, configure: Configure) -> None:
    """`STORESCOPE_REDACT` holds for error texts as for payloads."""
    configure(STORESCOPE_CAPTURE="arguments", STORESCOPE_REDACT="acme-[0-9]+|no such")
    with observed(Lab, tmp_path) as (lab, recorder):
        lab.context.call_tool("lab_fail", {"text": "acme-123"})
        (span,) = calls(recorder)
    assert span.attributes[semconv.GEN_AI_TOOL_CALL_ARGUMENTS] == '{"text": "[redacted]"}'
    assert span.message == "[redacted] thing password=[redacted]"


# Hooks.


@pytest.mark.anystore
def test_hooks_see_span_call_and_result(request: pytest.FixtureRequest, recorder: Recorder) -> None:
    """The request hook runs before the call, the response hook after it, with what it returned or raised."""
    seen: list[Any] = []

    def before(span: Any, call: Any) -> None:
        span.set_attribute("tenant", "acme")
        seen.append(call)

    def after(span: Any, call: Any, result: Any) -> None:
        span.set_attribute("answered", True)
        seen.append(result)

    call_tool = _context(request).call_tool
    storescope.instrument(request_hook=before, response_hook=after)
    result = call_tool("lab_echo", {"text": "hi"})

    (span,) = calls(recorder)
    assert (span.attributes["tenant"], span.attributes["answered"]) == ("acme", True)
    call, returned = seen[0], seen[-1]
    assert call.operation == "tools/call"
    assert call.tool in ("echo", "lab_echo")
    assert call.arguments == {"text": "hi"}
    assert returned == result


def _context(request: pytest.FixtureRequest) -> Any:
    """Return a context of the installed generation."""
    from integration.conftest import store_generation

    return request.getfixturevalue("lab" if store_generation() == "mcpstore2" else "lab1").context


@mcpstore2
def test_a_response_hook_is_given_what_was_raised(lab: Lab, recorder: Recorder) -> None:
    """A call that raises hands the exception to the hook, the same that the application gets."""
    seen: list[Any] = []
    storescope.instrument(response_hook=lambda span, call, result: seen.append(result))
    with pytest.raises(RuntimeError) as raised:
        lab.context.call_tool("lab_rpc_error", {})
    assert seen == [raised.value]


@mcpstore2
def test_a_hook_that_raises_the_applications_exception_leaves_it_as_it_is(
    lab: Lab, recorder: Recorder
) -> None:
    """What the application gets is what it would have got, with what stands behind it."""

    def reraise(span: Any, call: Any, result: Any) -> None:
        raise result

    storescope.instrument(response_hook=reraise)
    try:
        raise KeyError("behind it")
    except KeyError:
        with pytest.raises(RuntimeError) as raised:
            lab.context.call_tool("lab_rpc_error", {})
    assert isinstance(raised.value.__context__, KeyError)


@mcpstore2
def test_a_hook_that_ends_the_program_leaves_nothing_behind(lab: Lab, recorder: Recorder) -> None:
    """What is no ordinary exception passes; the next call is no part of the one that it ended."""

    def interrupt(span: Any, call: Any, result: Any) -> None:
        raise KeyboardInterrupt

    storescope.instrument(response_hook=interrupt)
    with pytest.raises(KeyboardInterrupt):
        lab.context.call_tool("lab_echo", {})
    storescope.instrument(response_hook=lambda span, call, result: None)
    recorder.clear()
    lab.context.call_tool("lab_echo", {})
    (call,) = calls(recorder)
    assert call.parent_id == ""


@mcpstore2
def test_a_hook_may_call_the_store(lab: Lab, recorder: Recorder) -> None:
    """What it calls is a part of the operation, and has no hooks of its own."""
    called: list[Any] = []

    def look(span: Any, call: Any, result: Any) -> None:
        called.append(lab.context.call_tool("lab_echo", {}))

    storescope.instrument(response_hook=look)
    lab.context.call_tool("lab_echo", {})
    assert len(called) == 1


@mcpstore1
def test_hooks_are_about_operations_and_know_in_the_end_what_the_span_says(
    lab1: Lab1, recorder: Recorder
) -> None:
    """With 1.5.x the name on the wire is found inside the call: the response hook has it. Phases have no hooks."""
    seen: list[Any] = []
    storescope.instrument(response_hook=lambda span, call, result: seen.append(call))
    lab1.context.call_tool("lab_echo", {"text": "hi"})
    (call,) = seen
    assert (call.operation, call.service, call.tool) == ("tools/call", "lab", "echo")


@mcpstore2
def test_a_hook_that_raises_is_logged_once(
    lab: Lab, recorder: Recorder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application gets its result, the span its attributes, the log one warning with the hook's own exception."""
    monkeypatch.setattr(notices, "_said", set())

    def broken(*args: Any) -> None:
        raise ValueError("a hook's own fault")

    storescope.instrument(request_hook=broken, response_hook=broken)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert not lab.context.call_tool("lab_echo", {"text": "hi"})["is_error"]
    assert [span.attributes[semconv.RESPONSE_SIZE] for span in calls(recorder)] == [2, 2, 2]
    assert [record.message.split(";")[0] for record in caplog.records] == [
        "storescope: the request hook failed",
        "storescope: the response hook failed",
    ]


# Exclusions.


def check_exclusion(call: Callable[..., Any], recorder: Recorder) -> None:
    call("lab_echo", {"text": "hi"})
    call("lab_add", {"a": 1, "b": 2})
    assert [span.attributes[semconv.GEN_AI_TOOL_NAME] for span in calls(recorder)] == ["add"]
    (call,) = calls(recorder)
    # Of 1.5.x, connections that `add_service` has begun may end by now.
    others = {span.name for span in recorder.spans() if span.trace_id != call.trace_id}
    assert others <= {"connect", "initialize"}
    assert recorder.count(semconv.CLIENT_OPERATION_DURATION, gen_ai__tool__name="echo") == 0


@pytest.mark.parametrize("pattern", ["echo", "lab_e*", "nothing,ec?o"])
@mcpstore2
def test_excluded_tools_are_not_recorded(tmp_path: Path, configure: Configure, pattern: str) -> None:
    """A pattern of a tool's name, on the wire or in the store, leaves its calls out of traces and metrics."""
    configure(STORESCOPE_EXCLUDED_TOOLS=pattern)
    with observed(Lab, tmp_path) as (lab, recorder):
        check_exclusion(lab.context.call_tool, recorder)

        async def scenario(store: Any, context: Any) -> None:
            recorder.clear()
            for _ in range(2):  # what the name on the wire is, is not known the first time
                await context.call_tool("lab_echo", {"text": "hi"})
            assert calls(recorder) == []

        run_async(tmp_path, scenario)


@pytest.mark.parametrize("pattern", ["echo", "lab_echo"])
@mcpstore1
def test_excluded_tools_of_1x_are_not_recorded(tmp_path: Path, configure: Configure, pattern: str) -> None:
    """With mcpstore 1.5.x neither the call nor its phases are."""
    configure(STORESCOPE_EXCLUDED_TOOLS=pattern)
    with observed(Lab1, tmp_path) as (lab1, recorder):
        check_exclusion(lab1.context.call_tool, recorder)


@pytest.mark.anystore
def test_a_store_can_be_switched_off(configure: Configure) -> None:
    """A kind of store that is switched off is not patched; the others are."""
    configure(STORESCOPE_DISABLED_STORES="mcpstore-1,mcpstore-2")
    with Recorder():
        patcher = StorescopeInstrumentor()._patcher
        assert patcher is not None
        import mcpstore

        if hasattr(mcpstore, "FileConfig"):
            import mcpstore._rust
        assert not [
            patch for patch in patcher.patches if "mcpstore" in getattr(patch.owner, "__module__", "")
        ]


# Event loops.


@mcpstore2
def test_a_sync_call_that_blocks_an_event_loop_is_marked(
    lab: Lab, recorder: Recorder, tmp_path: Path
) -> None:
    """`storescope.event_loop.blocked` stands on a sync call inside a running loop, and nowhere else."""

    async def blocking() -> None:
        lab.context.call_tool("lab_echo", {})

    lab.context.call_tool("lab_echo", {})
    asyncio.run(blocking())

    async def scenario(store: Any, context: Any) -> None:
        await context.call_tool("lab_echo", {})

    run_async(tmp_path, scenario)
    marks = [span.attributes.get(semconv.EVENT_LOOP_BLOCKED) for span in calls(recorder)]
    assert marks == [None, True, None]


@mcpstore1
def test_a_sync_call_of_1x_that_blocks_an_event_loop_is_marked(lab1: Lab1, recorder: Recorder) -> None:
    """1.5.x hands the call to a thread of its own: the loop that waits is blocked, and the spans keep their parent."""

    async def blocking() -> None:
        with recorder.tracer.start_as_current_span("application"):
            lab1.context.call_tool("lab_echo", {})

    async def awaiting() -> None:
        await lab1.context.call_tool_async("lab_echo", {})

    lab1.context.call_tool("lab_echo", {})
    asyncio.run(blocking())
    asyncio.run(awaiting())
    marks = [span.attributes.get(semconv.EVENT_LOOP_BLOCKED) for span in calls(recorder)]
    assert marks == [None, True, None]
    assert calls(recorder)[1].parent_id == named(recorder.spans(), "application").span_id


# Names.


def test_names_in_metrics_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """Beyond the first thousand, tools share one series for each service, marked as overflow; one warning says so."""
    telemetry = Telemetry(TracerProvider(), MeterProvider())
    shared = {semconv.MCP_METHOD_NAME: "tools/call", semconv.SERVICE_NAME: "lab"}
    with caplog.at_level(logging.WARNING):
        series = {
            tuple(
                sorted(
                    telemetry.bounded({**shared, semconv.GEN_AI_TOOL_NAME: f"tool {n}"}, exists=True).items()
                )
            )
            for n in range(10_000)
        }
    assert len(series) == MAX_NAMES + 1
    assert tuple(sorted({**shared, semconv.METRIC_OVERFLOW: True}.items())) in series
    known = {**shared, semconv.GEN_AI_TOOL_NAME: "tool 7"}
    assert telemetry.bounded(known, exists=True) == known
    (record,) = caplog.records
    assert "more than 1000 names" in record.message


def test_made_up_names_do_not_take_the_place_of_real_ones() -> None:
    """Names that only failed so far have a few series of their own: a tool that exists is told from others still."""
    telemetry = Telemetry(TracerProvider(), MeterProvider())
    for n in range(10_000):
        telemetry.bounded({semconv.GEN_AI_TOOL_NAME: f"made up {n}"}, exists=False)
    echo = {semconv.GEN_AI_TOOL_NAME: "echo"}
    assert telemetry.bounded(echo, exists=True) == echo
    assert telemetry.bounded(echo, exists=False) == echo
    assert telemetry.bounded({semconv.GEN_AI_TOOL_NAME: "made up 9999"}, exists=False) == {
        semconv.METRIC_OVERFLOW: True
    }


def test_names_of_services_are_bounded_too() -> None:
    """A server gives itself its name: whatever it chooses, series stay bounded."""
    telemetry = Telemetry(TracerProvider(), MeterProvider())
    series = {
        tuple(telemetry.bounded({semconv.SERVICE_NAME: f"service {n}"}, exists=True).items())
        for n in range(10_000)
    }
    assert len(series) == MAX_NAMES + 1


@mcpstore2
def test_hooks_can_be_set_under_the_launcher(runner: Runner) -> None:
    """`storescope.instrument()` with hooks, in a program that runs under the launcher, adds them to the agent there."""
    program = f"""
import storescope
storescope.instrument(request_hook=lambda span, call: span.set_attribute("tenant", "acme"))
{SET_UP_A_STORE}
store.call_tool("lab_echo", {{}})
"""
    finished = runner.run(program, str(STDIO_SERVER)).check()
    assert named(finished.spans(), "tools/call echo").attributes["tenant"] == "acme"
