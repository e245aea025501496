"""A store that storescope has never heard of, observed by an adapter that is installed beside it."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from integration.harness import ROOT, Finished, Runner, children, named

from storescope import semconv

PACKAGE = ROOT / "tests" / "packages" / "shop-store"
REQUESTS = semconv.CLIENT_OPERATION_DURATION
OPERATIONS = semconv.OPERATION_DURATION
SERVICE = {"storescope.service.name": "lab"}

#: Prints what the application sees of each call; needs the server's URL, and which face of the store to use.
PROGRAM = """
import asyncio, json, sys
import shop_store

url, face = sys.argv[1:]

def see(act):
    try:
        answer = act()
        if asyncio.iscoroutine(answer):
            answer = asyncio.run(answer)
        print(json.dumps(answer))
    except Exception as error:
        print(type(error).__name__, error, type(error.__context__).__name__)

shop = getattr(shop_store, face)()
see(lambda: shop.add_service("lab", url))
see(lambda: shop.call("lab.echo", {"text": "payl0ad"}))
see(lambda: shop.call(arguments={"seconds": 0.2}, tool="lab.sleep"))
see(lambda: shop.call("lab.fail"))
see(lambda: shop.call("lab.rpc_error"))
see(lambda: shop.call("nobody.ask"))
see(lambda: shop.call())
see(lambda: shop.call("lab.add", {}, "more"))
see(lambda: shop.call(7))
print(asyncio.iscoroutinefunction(shop.call), shop.call.__doc__)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store and its adapter, as pip installs them."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("this environment has no pip to install a package with")
    folder = tmp_path_factory.mktemp("site")
    install = [sys.executable, "-m", "pip", "--quiet", "install", "--no-deps", "--target", str(folder)]
    done = subprocess.run([*install, str(PACKAGE)], capture_output=True, text=True, timeout=100, check=False)
    if "No matching distribution found for hatchling" in done.stderr:
        pytest.skip("the build backend cannot be downloaded here")
    assert done.returncode == 0, done.stderr
    return folder


def run(runner: Runner, site: Path, url: str, face: str = "Shop", **env: str) -> Finished:
    return runner.run(PROGRAM, url, face, env={"PYTHONPATH": str(site), **env}).check()


@pytest.mark.parametrize("face", ["Shop", "AsyncShop"])
def test_a_store_of_others_is_observed(runner: Runner, site: Path, http_url: str, face: str) -> None:
    """Its spans have names, kinds, attributes, phases and durations like those of stores that we know."""
    spans = run(runner, site, http_url, face).spans()

    address = urlsplit(http_url)
    added, echo, sleep = (
        named(spans, name) for name in ("add_service lab", "tools/call echo", "tools/call sleep")
    )
    assert {span.scope for span in spans} == {"storescope"}
    assert added.kind == "INTERNAL"
    assert added.attributes.items() >= {"storescope.store.operation": "add_service", **SERVICE}.items()
    assert (echo.kind, echo.status, echo.parent_id) == ("CLIENT", "UNSET", "")
    expected = {
        "mcp.method.name": "tools/call",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "echo",
        "storescope.tool.alias": "lab.echo",
        "storescope.request.size": len("text") + len("payl0ad"),
        "storescope.response.size": len("payl0ad"),
        "network.transport": "tcp",
        "network.protocol.name": "http",
        "server.address": address.hostname,
        "server.port": address.port,
        **SERVICE,
    }
    assert echo.attributes.items() >= expected.items()
    (phase,) = children(spans, echo)
    assert (phase.name, phase.kind) == ("initialize", "INTERNAL")
    assert phase.attributes.items() >= {"storescope.phase": "initialize"}.items()
    assert sleep.attributes["gen_ai.tool.name"] == "sleep"
    assert sleep.seconds > 0.2


@pytest.mark.parametrize("face", ["Shop", "AsyncShop"])
def test_its_failures_are_told_apart(runner: Runner, site: Path, http_url: str, face: str) -> None:
    """What a server marks, refuses or never gets, and what the store refuses itself, each has its `error.type`."""
    finished = run(runner, site, http_url, face)

    failed = [span for span in finished.spans() if span.status == "ERROR"]
    assert [(span.name, span.attributes["error.type"]) for span in failed] == [
        ("tools/call fail", "tool_error"),
        ("tools/call rpc_error", "-32602"),
        ("tools/call ask", "service_not_found"),
        *([("tools/call", "TypeError"), ("tools/call add", "TypeError")] if face == "Shop" else []),
        ("tools/call", "AttributeError"),
    ]
    assert failed[0].message == "no such thing password=[redacted]"
    assert failed[1].attributes["rpc.response.status_code"] == "-32602"
    assert "payl0ad" not in finished.written()


@pytest.mark.parametrize("face", ["Shop", "AsyncShop"])
def test_its_durations_are_recorded(runner: Runner, site: Path, http_url: str, face: str) -> None:
    """Requests that reached a server are in the MCP histogram, everything else is in ours."""
    points = run(runner, site, http_url, face).points()

    def count(metric: str, **attributes: str) -> int:
        wanted = {name.replace("__", "."): value for name, value in attributes.items()}
        found = [point for point in points if point.metric == metric]
        return sum(point.count for point in found if wanted.items() <= point.attributes.items())

    tools = {tool: count(REQUESTS, gen_ai__tool__name=tool) for tool in ("sleep", "fail", "rpc_error")}
    assert tools == {"sleep": 1, "fail": 1, "rpc_error": 1}
    assert count(REQUESTS, error__type="tool_error") == count(REQUESTS, error__type="-32602") == 1
    assert count(OPERATIONS, error__type="service_not_found") == 1
    assert count(OPERATIONS, storescope__store__operation="add_service") == 1
    (sleep,) = (point for point in points if point.attributes.get("gen_ai.tool.name") == "sleep")
    assert 0.2 < sleep.total < 10


@pytest.mark.parametrize("face", ["Shop", "AsyncShop"])
def test_the_application_sees_what_it_saw_before(
    runner: Runner, site: Path, http_url: str, face: str
) -> None:
    """Results, exceptions, refusals of bad arguments and what inspection shows are the same without the agent."""
    bare = runner.run(PROGRAM, http_url, face, env={"PYTHONPATH": str(site)}, launcher=False).check()
    observed = run(runner, site, http_url, face)

    assert "missing 1 required positional argument" in bare.stdout
    assert (observed.stdout, observed.stderr) == (bare.stdout, bare.stderr)


def test_one_kind_of_store_can_be_switched_off(runner: Runner, site: Path, http_url: str) -> None:
    """`STORESCOPE_DISABLED_STORES` takes its name; one that is misspelt gets a warning with those that there are."""
    off = run(runner, site, http_url, STORESCOPE_DISABLED_STORES="shop")
    assert (off.spans(), off.stderr) == ([], "")

    misspelt = run(runner, site, http_url, STORESCOPE_DISABLED_STORES="shoop")
    assert "tools/call echo" in {span.name for span in misspelt.spans()}
    (warning,) = [line for line in misspelt.stderr.splitlines() if "STORESCOPE_DISABLED_STORES" in line]
    assert "'shoop'" in warning
    assert "mcp-session, mcpstore-1, mcpstore-2, shop" in warning


def test_the_adapter_imports_no_store(runner: Runner, site: Path) -> None:
    """A program that uses no shop does not pay for one."""
    program = "import sys; print('shop_store_storescope' in sys.modules, 'shop_store' in sys.modules)"
    finished = runner.run(program, env={"PYTHONPATH": str(site)}).check()

    assert finished.stdout == "True False\n"


def test_doctor_lists_it(runner: Runner, site: Path) -> None:
    """With its release, and how many of its targets were found."""
    program = "from storescope.cli import main; main(['doctor'])"
    finished = runner.run(program, env={"PYTHONPATH": str(site)}, launcher=False)

    assert re.search(r"shop +shop.store 1\.0: 5 of 5 targets found", finished.stdout)
