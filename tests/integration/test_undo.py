"""What the agent changes in a process, and how it is undone: on the real table of the installed store."""

from __future__ import annotations

import json
from typing import Any

import pytest
import wrapt
from integration.harness import Runner
from integration.recording import Recorder
from integration.stores import SET_UP_A_STORE, Lab

import storescope

#: Runs steps (`import`, `patch`, `undo`) and prints the kind of what then stands at each target, and whether it is
#: the very same that stood there first.
STEPS = """
import importlib, json, sys, wrapt
from opentelemetry.sdk.trace import TracerProvider
from storescope.instrumentation import StorescopeInstrumentor
from storescope.settings import Settings
from storescope.stores import load_adapters

targets = [target for adapter in load_adapters(Settings()) for target in adapter.targets]
agent = StorescopeInstrumentor()

def look():
    found = {}
    for target in targets:
        try:
            owner, name, _ = wrapt.resolve_path(sys.modules[target.module], target.name)
        except (KeyError, AttributeError):
            continue
        found[f"{target.module}:{target.name}"] = vars(owner).get(name)
    return found

first = None
for step in sys.argv[1:]:
    if step == "import":
        for module in dict.fromkeys(target.module for target in targets):
            try:
                importlib.import_module(module)
            except ImportError:
                pass
        first = look()
    elif step == "patch":
        agent.instrument(skip_dep_check=True, tracer_provider=TracerProvider())
    else:
        agent.uninstrument()
last = look()
print(json.dumps({
    "kinds": {name: type(value).__name__ for name, value in last.items()},
    "same": [name for name, value in last.items() if value is first[name]],
}))
"""


def look(runner: Runner, *steps: str) -> dict[str, Any]:
    finished = runner.run(STEPS, *steps, launcher=False).check()
    state: dict[str, Any] = json.loads(finished.stdout)
    return state


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What stands at each target where the agent never was."""
    kinds: dict[str, str] = look(Runner(tmp_path_factory.mktemp("untouched")), "import")["kinds"]
    return kinds


@pytest.mark.anystore
@pytest.mark.parametrize(
    "steps",
    ["import patch undo", "patch import undo", "patch undo import", "import patch undo patch undo"],
)
def test_every_target_is_restored(runner: Runner, untouched: dict[str, str], steps: str) -> None:
    """Import, patch and undo in every order: the raw value comes back at every target of the table."""
    state = look(runner, *steps.split())

    assert len(untouched) > 30
    assert state["kinds"] == untouched
    if steps.startswith("import"):
        assert set(state["same"]) == set(untouched)


@pytest.mark.anystore
@pytest.mark.parametrize("steps", ["import patch", "patch import"])
def test_every_target_is_patched(runner: Runner, untouched: dict[str, str], steps: str) -> None:
    """Before or after the import: every target of the installed release is patched."""
    kinds = look(runner, *steps.split())["kinds"]

    assert kinds.keys() == untouched.keys()
    assert set(kinds.values()) == {"FunctionWrapper"}


@pytest.mark.anystore
@pytest.mark.parametrize("variable", [{"STORESCOPE_ENABLED": "off"}, {"OTEL_SDK_DISABLED": "true"}])
def test_an_agent_that_is_switched_off_patches_nothing(
    runner: Runner, untouched: dict[str, str], variable: dict[str, str]
) -> None:
    """`STORESCOPE_ENABLED=off` and `OTEL_SDK_DISABLED` are read at start and leave the store untouched."""
    finished = runner.run(STEPS, "import", env=variable).check()

    assert json.loads(finished.stdout)["kinds"] == untouched
    assert finished.spans() == []


FOOTPRINT = """
import gc, json, logging, os, signal, sys, threading

state = {
    "environment": sorted(os.environ),
    "signals": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
    "gc": [gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()],
    "switch interval": sys.getswitchinterval(),
    "hooks": [str(sys.excepthook), str(threading.excepthook), str(sys.gettrace()), str(sys.getprofile())],
    "logging": [logging.getLogger().level, len(logging.getLogger().handlers)],
    "stdout": sys.stdout is sys.__stdout__,
}
for name in ("mcp", "fastmcp", "mcpstore", "grpc"):
    assert name not in sys.modules, name
print(json.dumps(state))
"""


def test_the_footprint_is_what_is_promised(runner: Runner) -> None:
    """Beside patches, hooks and exporter threads a launched program differs by one variable, and nothing else."""
    with_agent = json.loads(runner.run(FOOTPRINT).check().stdout)
    without = json.loads(runner.run(FOOTPRINT, launcher=False).check().stdout)

    added = set(with_agent.pop("environment")) - set(without.pop("environment"))
    # PYTHONPATH is how OpenTelemetry's launcher gets in.
    assert added - {"PYTHONPATH"} == {"STORESCOPE_PID"}
    assert with_agent == without


@pytest.mark.mcpstore2
def test_uninstrumenting_ends_the_recording(lab: Lab, recorder: Recorder) -> None:
    """After `uninstrument()` calls are not observed, by any callable; after a second `instrument()`, once."""
    held = lab.context._native.call_tool
    recorder.uninstrument()
    lab.context.call_tool("lab_echo", {})
    held("lab_echo", {})
    assert recorder.spans() == []

    recorder.instrument()
    lab.context.call_tool("lab_echo", {})
    assert [span.name for span in recorder.spans()] == ["tools/call echo"]


@pytest.mark.mcpstore2
def test_somebody_elses_wrapper_survives(lab: Lab, recorder: Recorder) -> None:
    """A wrapper that somebody put around ours stays where it is, before and after, and calls are counted once."""
    import mcpstore._rust as native

    seen: list[str] = []

    def theirs(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        seen.append(wrapped.__name__)
        return wrapped(*args, **kwargs)

    ours = vars(native.ScopeContext)["call_tool"]
    their_wrapper = wrapt.FunctionWrapper(ours, theirs)
    native.ScopeContext.call_tool = their_wrapper
    try:
        recorder.uninstrument()
        assert vars(native.ScopeContext)["call_tool"] is their_wrapper
        lab.context.call_tool("lab_echo", {})
        assert recorder.spans() == []
        recorder.instrument()
        lab.context.call_tool("lab_echo", {})
        assert recorder.span().name == "tools/call echo"
        recorder.uninstrument()
        assert vars(native.ScopeContext)["call_tool"] is their_wrapper
    finally:
        native.ScopeContext.call_tool = ours.__wrapped__
    assert seen == ["call_tool"] * 2


@pytest.mark.mcpstore2
def test_pausing_and_resuming(lab: Lab, recorder: Recorder) -> None:
    """`pause()` records nothing until `resume()`; the patches stay."""
    storescope.pause()
    lab.context.call_tool("lab_echo", {})
    assert recorder.spans() == []
    storescope.resume()
    lab.context.call_tool("lab_echo", {})
    assert recorder.span().name == "tools/call echo"


@pytest.mark.mcpstore2
def test_instrumenting_from_code_does_what_the_launcher_does(runner: Runner) -> None:
    """`storescope.instrument()` sets OpenTelemetry up and observes; `uninstrument()` ends it."""
    program = f"""
import storescope
storescope.instrument()
{SET_UP_A_STORE}
store.call_tool("lab_echo", {{}})
storescope.uninstrument()
store.call_tool("lab_add", {{}})
"""
    finished = runner.run(program, launcher=False).check()

    calls = [span.name for span in finished.spans() if span.kind == "CLIENT"]
    assert calls == ["tools/call echo"]
    assert [
        point.count for point in finished.points() if point.metric == "mcp.client.operation.duration"
    ] == [1]


@pytest.mark.mcpstore2
def test_a_provider_that_the_application_sets_later_is_followed(runner: Runner) -> None:
    """An agent that was there before the application's own provider records into it once it is set."""
    program = f"""
import json
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from storescope.instrumentation import StorescopeInstrumentor

StorescopeInstrumentor().instrument(skip_dep_check=True)
{SET_UP_A_STORE}
store.call_tool("lab_echo", {{}})
exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
store.call_tool("lab_add", {{}})
print(json.dumps([span.name for span in exporter.get_finished_spans()]))
"""
    finished = runner.run(program, launcher=False).check()

    assert json.loads(finished.stdout) == ["tools/call add"]


@pytest.mark.mcpstore2
def test_servers_that_the_store_spawns_stay_dormant(runner: Runner) -> None:
    """A Python server inherits the whole environment, and writes no telemetry of its own."""
    finished = runner.run(f"{SET_UP_A_STORE}\nstore.call_tool('lab_echo', {{}})").check()

    assert len(list(finished.directory.glob("traces-*.jsonl"))) == 1
    assert {span.resource["service.name"] for span in finished.spans()} == {"app"}
