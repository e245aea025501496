"""The demo: a real store, a real server, an unchanged program, shown in one command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from unit.command import storescope

from storescope.demo import agent, server

DEMO = [sys.executable, "-c", "from storescope.cli import main; main(prog_name='storescope')", "demo"]


class Client:
    """Speaks JSON-RPC with the demo's server, which runs as the process that a store would spawn."""

    def __init__(self) -> None:
        command = [sys.executable, server.__file__]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def send(self, *messages: object) -> None:
        assert self.process.stdin is not None
        for message in messages:
            self.process.stdin.write((message if isinstance(message, str) else json.dumps(message)) + "\n")
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self, method: str, **params: object) -> dict[str, Any]:
        self.send({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        return self.receive()

    def close(self) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait(timeout=10)


@pytest.fixture
def client() -> Any:
    client = Client()
    yield client
    assert client.close() == 0


def test_the_server_speaks_mcp(client: Client) -> None:
    """It answers whatever protocol version is asked for, lists its tools and calls them."""
    hello = client.ask("initialize", protocolVersion="2099-01-01", capabilities={}, clientInfo={})
    assert hello["result"]["protocolVersion"] == "2099-01-01"
    client.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
    assert client.ask("ping")["result"] == {}
    tools = client.ask("tools/list")["result"]["tools"]
    assert [tool["name"] for tool in tools] == [
        "search_notes",
        "read_note",
        "word_count",
        "summarize",
        "publish",
    ]
    assert all(tool["description"] and tool["inputSchema"]["required"] for tool in tools)
    found = client.ask("tools/call", name="search_notes", arguments={"query": "release"})["result"]
    assert found == {"content": [{"type": "text", "text": "roadmap\nbudget\nfeedback"}], "isError": False}


def test_the_server_tells_a_tools_failure_from_a_protocol_error(client: Client) -> None:
    """A failing tool is a result marked as error; an unknown tool, method or text is a JSON-RPC error."""
    failed = client.ask("tools/call", name="publish", arguments={"text": "two words"})["result"]
    assert failed["isError"]
    assert "read-only: 2 words" in failed["content"][0]["text"]
    assert client.ask("tools/call", name="nope", arguments={})["error"]["code"] == -32602
    assert client.ask("tools/call", name="read_note", arguments={})["error"]["code"] == -32602
    assert client.ask("resources/list")["error"]["code"] == -32601
    client.send("not json")
    assert client.receive()["error"]["code"] == -32700


def test_the_server_answers_others_while_a_tool_is_slow(client: Client) -> None:
    """A ping overtakes a slow summary."""
    slow = {"jsonrpc": "2.0", "id": "slow", "method": "tools/call"}
    slow["params"] = {"name": "summarize", "arguments": {"text": "One. Two."}}
    client.send(slow, {"jsonrpc": "2.0", "id": "fast", "method": "ping"})
    assert [client.receive()["id"], client.receive()["id"]] == ["fast", "slow"]


def test_the_program_knows_nothing_of_telemetry() -> None:
    """What the demo shows is what happens to an unchanged program."""
    for file in (agent.__file__, server.__file__):
        code = Path(file).read_text(encoding="utf-8")
        imported = [line for line in code.splitlines() if line.lstrip().startswith(("import ", "from "))]
        assert not any("opentelemetry" in line or "storescope" in line for line in imported)


@pytest.mark.mcpstore2
def test_demo_shows_what_the_program_did(tmp_path: Path) -> None:
    """The program's own words, its trace, its table, the file, and what to do next; nothing else is touched."""
    home = tmp_path / "home"
    home.mkdir()
    hostile = {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "none", "STORESCOPE_ENABLED": "off"}
    result = subprocess.run(
        DEMO, cwd=tmp_path, env={**os.environ, "HOME": str(home), **hostile},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    said, shown = result.stdout.split("\n\n", 1)
    assert said.startswith("$ opentelemetry-instrument python -m storescope.demo.agent\nagent: ")
    assert shown.startswith("storescope.demo.agent  ")
    for words in (
        "list_tools",
        "cache hit",
        "tools/call summarize",
        "✗ tools/call publish",
        "tool_error: ",
        "p95",
    ):
        assert words in shown
    assert shown.count("tools/call read_note ") == 4
    assert shown.endswith(
        "Again with your own program:\n  opentelemetry-instrument python app.py\n  storescope view\n"
    )
    (file,) = (tmp_path / ".storescope" / "demo").glob("traces-*.jsonl")
    assert f"Recorded in {file.relative_to(tmp_path)}" in shown
    assert list(home.iterdir()) == []


@pytest.mark.mcpstore2
def test_demo_shows_its_latest_run_only(tmp_path: Path) -> None:
    """Run again into the same folder, it shows the new run, with the calls of one program."""
    shown = [storescope("demo", "--dir", tmp_path / "it").stdout for _ in range(2)]
    assert len(list((tmp_path / "it").glob("traces-*.jsonl"))) == 2
    assert shown[1].count("tools/call summarize") == 1
    assert "other run" not in shown[1]


@pytest.mark.mcpstore2
def test_demo_says_when_nothing_was_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that keeps the agent away is named instead of an old or empty view."""
    monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "storescope")
    result = storescope("demo", "--dir", tmp_path)
    assert result.exit_code == 1
    assert result.stderr == (
        f"storescope: the demo's program recorded nothing in {tmp_path}; an OTEL_* variable may hold it back.\n"
    )


def test_demo_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another generation of mcpstore gives the command that installs the right one, and exit code 1."""
    metadata = tmp_path / "mcpstore-1.5.18.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: mcpstore\nVersion: 1.5.18\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    result = storescope("demo")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "storescope: the demo needs mcpstore 2.x: mcpstore 1.5.18 is another generation.\n"
        "Install it: pip install 'mcpstore>=2.3,<3'\n"
    )
