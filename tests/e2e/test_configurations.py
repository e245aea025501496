"""The files of `collector-config/`: taken by the real programs, reached from this machine alone, of one version."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import psutil
import pytest
import yaml
from e2e.processes import BUILD, COLLECTOR, CONFIGURATIONS, JAEGER, Backend, Program, command
from integration.harness import ROOT

COMPOSE = yaml.safe_load((CONFIGURATIONS / "compose.yaml").read_text("utf-8"))["services"]

#: The files that each program is run with.
USES = [
    (JAEGER, ["jaeger.yaml"]),
    (COLLECTOR, ["collector.yaml"]),
    (COLLECTOR, ["collector.yaml", "collector-files.yaml"]),
]


@pytest.mark.parametrize(("program", "files"), USES)
def test_a_configuration_is_valid(program: Program, files: list[str]) -> None:
    """With no variable set, the program that it is for accepts it."""
    subprocess.run(command(program, *files, task="validate"), check=True, env={}, timeout=30)


def test_every_configuration_is_used() -> None:
    """No file lies in the folder that is not one of these, and the README there says what each is for."""
    readme = (CONFIGURATIONS / "README.md").read_text("utf-8")
    names = {path.name for path in CONFIGURATIONS.iterdir()}

    assert names == {"README.md", "compose.yaml", *(name for _, files in USES for name in files)}
    assert [name for name in names - {"README.md"} if f"`{name}`" not in readme] == []


def test_nobody_else_is_let_in(jaeger: Backend, collector: Backend) -> None:
    """Unless they are told otherwise, both listen on this machine alone, and on no port but the named ones."""
    for backend in (jaeger, collector):
        listening = {
            (connection.laddr.ip, connection.laddr.port)
            for connection in psutil.Process(backend.pid).net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {("127.0.0.1", port) for port in backend.ports.values()}


@pytest.mark.parametrize("name", COMPOSE)
def test_a_container_is_given_what_it_reads(name: str) -> None:
    """Its configuration is there and names every variable that is set; ports are published to this machine alone."""
    service: dict[str, Any] = COMPOSE[name]
    ((source, target, mode),) = [volume.split(":") for volume in service["volumes"]]
    configuration = (CONFIGURATIONS / source).read_text("utf-8")
    defaults = set(re.findall(r"_PORT:-(\d+)\}", configuration))

    assert service["command"] == ["--config", target]
    assert mode == "ro"
    assert [variable for variable in service["environment"] if f"env:{variable}:-" not in configuration] == []
    for published in service["ports"]:
        address, outside, inside = published.split(":")
        assert address == "127.0.0.1"
        assert outside == inside
        assert inside in defaults


def test_the_collector_sends_to_where_jaeger_listens() -> None:
    """With containers and without, unless told otherwise."""
    (port,) = re.findall(r"JAEGER_OTLP_GRPC_PORT:-(\d+)", (CONFIGURATIONS / "jaeger.yaml").read_text("utf-8"))
    collector = (CONFIGURATIONS / "collector.yaml").read_text("utf-8")

    assert re.findall(r"JAEGER_OTLP_ENDPOINT:-([^}]+)", collector) == [f"127.0.0.1:{port}"]
    assert COMPOSE["collector"]["environment"]["JAEGER_OTLP_ENDPOINT"] == f"jaeger:{port}"


def test_the_documented_ports_are_those_that_are_published() -> None:
    """The table of docs/jaeger.md leaves none out."""
    page = (ROOT / "docs" / "jaeger.md").read_text("utf-8")
    rows = re.findall(r"^\| ([\d, ]+) \|", page, re.MULTILINE)
    published = {port.split(":")[1] for service in COMPOSE.values() for port in service["ports"]}

    assert {port for row in rows for port in row.split(", ")} == published


def test_containers_are_of_the_versions_that_are_tested() -> None:
    """The images are those of the modules that the tests' own programs are built from."""
    modules = dict(re.findall(r"^\t(\S+) v(\S+)", (BUILD.parent / "go.mod").read_text("utf-8"), re.MULTILINE))
    collector = modules[
        "github.com/open-telemetry/opentelemetry-collector-contrib/receiver/otlpjsonfilereceiver"
    ]
    # Jaeger's module has the tag of the first generation, on the same commit as that of the second.
    jaeger = {"1.76.0": "2.13.0"}[modules["github.com/jaegertracing/jaeger"]]

    assert COMPOSE["collector"]["image"] == f"otel/opentelemetry-collector-contrib:{collector}"
    assert COMPOSE["jaeger"]["image"] == f"jaegertracing/jaeger:{jaeger}"
    assert f'"{collector}"' in (BUILD.parent / "collector" / "main.go").read_text("utf-8")
