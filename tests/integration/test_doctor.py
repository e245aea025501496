"""`storescope doctor` as a process, with a real store: a healthy set-up, and one with many faults at once."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sysconfig
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from receivers import grpc_receiver, http_receiver, refused_port
from unit.installed import install

pytestmark = pytest.mark.anystore

SCRIPTS = sysconfig.get_path("scripts")
CHOSEN = {"OTEL_PYTHON_DISTRO": "storescope", "OTEL_PYTHON_CONFIGURATOR": "storescope"}


def doctor(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command in a folder of its own."""
    command = [str(Path(SCRIPTS) / "storescope"), "doctor", *options]
    path = os.pathsep.join((SCRIPTS, os.environ["PATH"]))
    environment = {**os.environ, "PATH": path, "PYTHONIOENCODING": "utf-8", **CHOSEN, **environment}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, check=False, text=True, timeout=60
    )


def findings(result: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """Return the findings by their subjects."""
    sections = json.loads(result.stdout)["sections"]
    return {finding["subject"]: finding for section in sections for finding in section["findings"]}


def test_a_healthy_set_up(tmp_path: Path) -> None:
    """The store is found with all of its targets, the receiver answers, nothing is written, and all is well."""
    with http_receiver() as receiver:
        result = doctor(tmp_path, "--json", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint)
    found = findings(result)

    assert result.returncode == 0
    assert {finding["level"] for finding in found.values()} - {"warning"} == {"ok"}
    release = version("mcpstore")
    ours = found[f"mcpstore-{release[0]}"]
    match = re.fullmatch(rf"mcpstore {re.escape(release)}: (\d+) of (\d+) targets found", ours["text"])
    assert match is not None
    assert len(ours["details"]) == min(13, int(match[2]) - int(match[1]))
    assert int(match[1]) > 0.9 * int(match[2])
    other = found["mcpstore-1" if release.startswith("2.") else "mcpstore-2"]
    assert other["text"] == f"is for other releases than mcpstore {release}"
    for subject in ("opentelemetry-instrument", "distro", "configurator", "instrumentation", "recording"):
        assert found[subject]["level"] == "ok"
    assert receiver.requests == ["traces", "metrics"]
    assert list(tmp_path.iterdir()) == []


def test_a_set_up_with_many_faults(tmp_path: Path) -> None:
    """Each is named with what to do about it, and the exit code is 1."""
    site = tmp_path / "site"
    broken = "[storescope_store]\nacme = acme_adapter:make\n"
    install(site, "acme-adapter", "0.9", entry_points=broken, acme_adapter="import gone")
    others = "[opentelemetry_instrumentor]\nmcp = theirs:Instrumentor\n"
    install(site, "opentelemetry-instrumentation-mcp", "0.62", entry_points=others)
    (tmp_path / "file").write_text("")
    with refused_port() as nobody:
        result = doctor(
            tmp_path,
            PYTHONPATH=str(site),
            OTEL_EXPORTER_OTLP_ENDPOINT=nobody.endpoint,
            STORESCOPE_DIR=str(tmp_path / "file" / "telemetry"),
            STORESCOPE_EXIT_TIMEOUT="soon",
        )

    assert result.returncode == 1
    for text in (
        "of acme-adapter 0.9 cannot be loaded: ModuleNotFoundError: No module named 'gone'",
        "Update or uninstall acme-adapter 0.9; its stores are not observed.",
        f"{nobody.endpoint}/v1/traces refuses connections: nothing listens there",
        "until then telemetry is kept in the local files",
        f"cannot be made: {tmp_path / 'file'} is no folder",
        "'soon' is not seconds, 0 or more; using the default (1)",
        "is loaded by the launcher and instruments MCP too",
        "Run: export OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=mcp",
    ):
        assert text in result.stdout
    assert result.stdout.splitlines()[-1].startswith("5 problems, 1 warning")


def test_a_receiver_that_speaks_grpc(tmp_path: Path) -> None:
    """It is asked the way the agent would ask it."""
    with grpc_receiver(refused=frozenset({"metrics"})) as receiver:
        asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
        found = findings(doctor(tmp_path, "--json", **asked))

    assert (found["traces"]["level"], found["metrics"]["level"]) == ("ok", "warning")
