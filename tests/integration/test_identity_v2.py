"""mcpstore 2.x: what the agent asks the store about itself, how often, and that it leaves the store as it was."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wrapt
from integration.harness import Runner
from integration.recording import Recorder
from integration.stores import SERVICE, SET_UP_A_STORE, Lab, run_async

from storescope import semconv

pytestmark = pytest.mark.mcpstore2


class Questions:
    """Counts what natives are asked that describe tools and services."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, face: str = "") -> None:
        import mcpstore._rust as native

        self.asked: list[str] = []
        for owner, method in (("ScopeContext", "find_tool"), ("Tool", "info"), ("Service", "info")):
            cls = getattr(native, face + owner)
            monkeypatch.setattr(cls, method, wrapt.FunctionWrapper(getattr(cls, method), self._count(owner)))

    def _count(self, owner: str) -> Callable[..., Any]:
        def count(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            self.asked.append(owner)
            return wrapped(*args, **kwargs)

        return count


def test_a_service_is_asked_about_itself_once(
    lab: Lab, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often its tools are called, by however many names."""
    questions = Questions(monkeypatch)
    for tool in ("lab_echo", "lab_add", "lab_echo", "lab_add", "echo", "echo"):
        lab.context.call_tool(tool, {})

    assert questions.asked.count("Service") <= 1
    assert questions.asked.count("ScopeContext") == len({"lab_echo", "lab_add", "echo"})
    assert {span.attributes[semconv.SERVICE_NAME] for span in recorder.spans()} == {SERVICE}


def test_an_async_service_is_asked_about_itself_once(
    tmp_path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the look-up beside the first call has ended, there is no other."""
    questions = Questions(monkeypatch, "Async")

    async def scenario(store: Any, context: Any) -> None:
        await context.call_tool("lab_echo", {})
        await asyncio.sleep(0.2)
        assert questions.asked.count("ScopeContext") == 1
        questions.asked.clear()
        for _ in range(5):
            await context.call_tool("lab_echo", {})

    run_async(tmp_path, scenario)

    assert questions.asked == []


CHANGES: dict[str, Callable[[Any], Any]] = {
    "restart_service": lambda service: service.restart_service(),
    "patch_service": lambda service: service.patch_service({"env": {"A": "b"}}),
    "update_service": lambda service: service.update_service(
        {key: service.info()["effective_config"][key] for key in ("command", "args")}
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_names_are_looked_up_again_after_a_change(
    lab: Lab, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """They may stand for something else by then; the looking up makes no span."""
    lab.context.call_tool("lab_echo", {})
    CHANGES[change](lab.context.find_service(SERVICE))
    lab.context.wait_service(SERVICE)
    recorder.clear()
    questions = Questions(monkeypatch)
    lab.context.call_tool("lab_echo", {})

    assert "ScopeContext" in questions.asked
    assert recorder.span().name == "tools/call echo"


def test_the_stores_definitions_are_left_alone(runner: Runner) -> None:
    """The store keeps the definitions of its services in a file: with the agent it is what it is without."""
    program = SET_UP_A_STORE + 'store.call_tool("lab_echo", {})\nprint(open("mcp.json").read())'
    alone = runner.run(program, launcher=False).check()
    observed = runner.run(program).check()

    assert json.loads(alone.stdout)["mcpServers"].keys() == {SERVICE}
    assert json.loads(observed.stdout) == json.loads(alone.stdout)
    assert observed.spans()
