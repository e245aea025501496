"""What is installed: one distribution with everything in it, found by the launcher, light to import."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest

import storescope

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "storescope"

ENTRY_POINTS = {
    ("console_scripts", "storescope", "storescope.cli:main"),
    ("opentelemetry_configurator", "storescope", "storescope.instrumentation.distro:StorescopeConfigurator"),
    ("opentelemetry_distro", "storescope", "storescope.instrumentation.distro:StorescopeDistro"),
    ("opentelemetry_instrumentor", "storescope", "storescope.instrumentation:StorescopeInstrumentor"),
    ("opentelemetry_metrics_exporter", "storescope_file", "storescope.export.file:FileMetricExporter"),
    ("opentelemetry_traces_exporter", "storescope_file", "storescope.export.file:FileSpanExporter"),
    ("storescope_store", "mcp-session", "storescope.stores.mcp_session:adapter"),
    ("storescope_store", "mcpstore-1", "storescope.stores.mcpstore_v1:adapter"),
    ("storescope_store", "mcpstore-2", "storescope.stores.mcpstore_v2:adapter"),
}
DEPENDENCIES = {
    "click",
    "msgspec",
    "opentelemetry-api",
    "opentelemetry-exporter-otlp",
    "opentelemetry-instrumentation",
    "opentelemetry-sdk",
    "psutil",
    "rich",
    "wrapt",
}


@pytest.fixture(scope="module")
def installed() -> Distribution:
    return distribution("storescope")


def run(*statements: str) -> str:
    """Run statements in a fresh interpreter and return what they print."""
    command = [sys.executable, "-c", "\n".join(statements)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    """Every module, the type marker and the licence are in it; tests and examples are not."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("this environment has no pip to build a wheel with")
    command = [
        sys.executable,
        "-m",
        "pip",
        "--quiet",
        "wheel",
        "--no-deps",
        "--wheel-dir",
        str(tmp_path),
        str(ROOT),
    ]
    built = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    if "No matching distribution found for hatchling" in built.stderr:
        pytest.skip("the build backend cannot be downloaded here")
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("storescope-*-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()

    modules = {path.relative_to(PACKAGE.parent).as_posix() for path in PACKAGE.rglob("*.py")}
    assert {name for name in names if ".dist-info/" not in name} == {*modules, "storescope/py.typed"}
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_everything_is_found_by_entry_points(installed: Distribution) -> None:
    """Launcher, exporters, stores and command come in through entry points, and each can be loaded."""
    assert {(found.group, found.name, found.value) for found in installed.entry_points} == ENTRY_POINTS
    for found in installed.entry_points:
        assert callable(found.load())


def test_no_extra_names_the_stores(installed: Distribution) -> None:
    """With an extra called `instruments` the launcher would leave the agent out where it finds no known store."""
    assert set(installed.metadata.get_all("Provides-Extra") or []) == {"dask", "mcp", "redis"}


def test_dependencies_are_ranges(installed: Distribution) -> None:
    """Each has a lowest version, and none is pinned."""
    requirements = installed.requires or []
    always = [requirement for requirement in requirements if "extra ==" not in requirement]

    assert {re.match(r"[\w-]+", requirement)[0] for requirement in always} == DEPENDENCIES  # type: ignore[index]
    for requirement in always:
        assert ">=" in requirement
        assert "==" not in requirement
        assert "~=" not in requirement


def test_what_it_says_of_itself(installed: Distribution) -> None:
    """Python 3.10 to 3.14, Apache-2.0, typed."""
    metadata = installed.metadata
    classifiers = metadata.get_all("Classifier") or []

    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Typing :: Typed" in classifiers
    assert [name.rpartition(" ")[2] for name in classifiers if "Python :: 3." in name] == [
        "3.10",
        "3.11",
        "3.12",
        "3.13",
        "3.14",
    ]


def test_the_core_loads_no_opentelemetry() -> None:
    """Who uses the core alone pays for nothing else: neither OpenTelemetry nor wrapt is imported."""
    loaded = run(
        "import sys, storescope, storescope.core",
        "print({name.partition('.')[0] for name in sys.modules} & {'opentelemetry', 'wrapt', 'grpc', 'rich', 'click'})",
    )

    assert loaded == "set()\n"


def test_the_agent_is_loaded_when_it_is_asked_for() -> None:
    """What `storescope` offers is there, and what it does not is an ordinary AttributeError."""
    for name in storescope.__all__:
        assert getattr(storescope, name)
    with pytest.raises(AttributeError, match="no attribute 'instrumment'"):
        storescope.instrumment  # noqa: B018 - looking it up is what is tested


def test_the_agent_imports_no_store_and_no_grpc() -> None:
    """Patching waits for what the application imports, from code as well as by the launcher."""
    loaded = run(
        "import sys, storescope",
        "from opentelemetry.sdk.trace import TracerProvider",
        "storescope.instrument(TracerProvider())",
        "print({name.partition('.')[0] for name in sys.modules} & {'mcp', 'fastmcp', 'mcpstore', 'grpc'})",
    )

    assert loaded == "set()\n"


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
@pytest.mark.parametrize("goal", ["demo", "test"])
def test_make_needs_python_alone(goal: str, tmp_path: Path) -> None:
    """From nothing, `make demo` and `make test` run Python's own venv and pip, and what these installed."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    command = ["make", "--dry-run", "--no-print-directory", goal, "PYTHON=python3"]
    made = subprocess.run(
        command, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=30
    ).stdout

    assert "python3 -m venv .venv\n" in made
    programs = set(re.findall(r"^([\w./-]+) ", made, re.MULTILINE)) - {"echo", "exit", "status", "wait"}
    assert {name for name in programs if not name.startswith(".venv")} == {"python3", "touch"}
    if goal == "demo":
        assert made.endswith(".venv/bin/storescope demo\n")
    else:
        assert "mcpstore==1.5.18" in made
