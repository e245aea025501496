"""`storescope doctor`: every fault is named, with what to do about it, and nothing is left behind."""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from receivers import Receiver, Reply, grpc_receiver, hanging_receiver, http_receiver, refused_port
from unit.command import storescope
from unit.installed import adapter, install

from storescope.cli.doctor import destinations

OURS = "mcpstore-1,mcpstore-2,mcp-session"
STORE = "print('the store says hello')\nclass Shelf:\n    def call(self): ...\n    def list(self): ...\n"
ENTRY_POINT = "[storescope_store]\nshelf = shelf_adapter:make\n"
needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions and links")

#: What the tests have imported, each time another source.
THEIR_MODULES = {"shelf", "inner", "outer", "crashing"} | {
    f"{name}_adapter" for name in ("shelf", "attic", "inner", "acme")
}

Finding = dict[str, object]


def _forget_their_modules() -> None:
    for module in THEIR_MODULES & sys.modules.keys():
        del sys.modules[module]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages with a small store and its adapter; other stores are switched off."""
    folder = tmp_path / "site"
    install(folder, "shelf", "1.2", shelf=STORE)
    targets = ("shelf:Shelf.call", "shelf:Shelf.list", "shelf:Shelf.sort")
    install(folder, "shelf-adapter", entry_points=ENTRY_POINT, shelf_adapter=adapter(*targets))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", sysconfig.get_path("scripts"))
    monkeypatch.setenv("STORESCOPE_DISABLED_STORES", OURS)
    monkeypatch.setenv("OTEL_PYTHON_DISTRO", "storescope")
    monkeypatch.setenv("OTEL_PYTHON_CONFIGURATOR", "storescope")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "storescope_file")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "storescope_file")
    yield folder
    _forget_their_modules()


@pytest.fixture
def endpoint(site: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Receiver], None]:
    """Have telemetry sent to a receiver."""

    def use(receiver: Receiver) -> None:
        monkeypatch.delenv("OTEL_TRACES_EXPORTER")
        monkeypatch.delenv("OTEL_METRICS_EXPORTER")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)

    return use


def examine() -> tuple[int, list[Finding]]:
    """Return the exit code and all findings, as a process of its own would give them."""
    _forget_their_modules()
    importlib.invalidate_caches()
    result = storescope("doctor", "--json")
    assert set(result.stderr.splitlines()) == {"the store says hello"}
    document = json.loads(result.stdout)
    assert document["format"] == "storescope.doctor/1"
    return result.exit_code, [finding for section in document["sections"] for finding in section["findings"]]


def finding(subject: str, code: int | None = None) -> Finding:
    """Return the one finding about something."""
    exit_code, findings = examine()
    (found,) = (found for found in findings if found["subject"] == subject)
    assert exit_code == (code if code is not None else int(any(f["level"] == "problem" for f in findings)))
    return found


@pytest.mark.usefixtures("site")
def test_a_healthy_set_up_has_no_problem(tmp_path: Path) -> None:
    """Exit code 0; every section says what is in force, and the folder is as it was before."""
    before = sorted(tmp_path.rglob("*"))
    result = storescope("doctor")
    assert result.exit_code == 0
    assert sorted(tmp_path.rglob("*")) == before
    lines = result.stdout.splitlines()
    for title in ("Installation", "Stores", "Launcher", "Where telemetry goes", "Settings", "Conflicts"):
        assert title in lines
    for text in ("storescope is loaded by the launcher", "shelf 1.2: 2 of 3 targets found", "recording"):
        assert text in result.stdout
    assert lines[-1].startswith(("No problem", "All is well"))
    assert "hello" not in result.stdout


@pytest.mark.usefixtures("site")
def test_a_target_that_a_release_does_not_have_is_no_problem() -> None:
    """It is listed, with what that means."""
    found = finding("shelf")
    assert found["level"] == "ok"
    assert found["details"] == ["this release does not have shelf:Shelf.sort"]


def test_a_release_without_any_target_is_a_problem(site: Path) -> None:
    """Nothing of that store would be observed."""
    (site / "shelf.py").write_text("print('the store says hello')")
    found = finding("shelf", code=1)
    assert (found["level"], found["text"]) == ("problem", "shelf 1.2 has none of its 3 targets")


def test_a_store_that_is_not_installed_is_said(site: Path) -> None:
    """One of several is nothing to worry about; none at all is a problem."""
    install(
        site,
        "attic",
        entry_points="[storescope_store]\nattic = attic_adapter:make\n",
        attic_adapter=adapter("attic:call"),
    )
    assert finding("attic", code=0)["text"] == "attic is not installed"
    (site / "shelf.py").write_text("print('the store says hello')")
    assert finding("stores", code=1)["level"] == "problem"


def test_a_store_that_cannot_be_imported_is_a_problem(site: Path) -> None:
    """The program will fail alike; the error is shown."""
    (site / "shelf.py").write_text("print('the store says hello')\nimport nowhere_to_be_found")
    found = finding("shelf", code=1)
    assert "shelf cannot be imported: ModuleNotFoundError: No module named 'nowhere_to_be_found'" in str(
        found["text"]
    )


def test_modules_that_import_each_other_are_found(site: Path) -> None:
    """An adapter's first module may be one that can only be imported after another, as in mcpstore 1.5.18."""
    (site / "inner.py").write_text("import outer\nouter.ready\ndef call(): ...")
    (site / "outer.py").write_text("import inner\nready = True\ndef call(): ...")
    install(site, "inner", "3", entry_points="[storescope_store]\ninner = inner_adapter:make\n",
            inner_adapter=adapter("inner:call", "inner:gone", "outer:call"))  # fmt: skip
    (site / "inner-3.dist-info" / "top_level.txt").write_text("inner\n")
    assert finding("inner", code=0)["text"] == "inner 3: 2 of 3 targets found"


@pytest.mark.parametrize(
    ("source", "error"),
    [("import gone", "ModuleNotFoundError: No module named 'gone'"), ("", "has no attribute 'make'"),
     ("raise SystemExit(5)", "it ends the program, with exit code 5"),
     ("def make(): raise ValueError('bad day')", "ValueError: bad day"), ("make = object", "no attribute 'targets'")],
)  # fmt: skip
def test_a_broken_adapter_package_is_named(site: Path, source: str, error: str) -> None:
    """With its error, beside adapters that work."""
    install(
        site,
        "acme-adapter",
        "0.9",
        entry_points="[storescope_store]\nacme = acme_adapter:make\n",
        acme_adapter=source,
    )
    found = finding("acme", code=1)
    assert found["level"] == "problem"
    assert str(found["text"]).startswith("of acme-adapter 0.9 cannot be loaded: ")
    assert error in str(found["text"])
    assert "acme-adapter 0.9" in str(found["advice"])
    assert finding("shelf")["level"] == "ok"


@pytest.mark.usefixtures("site")
def test_stores_that_are_switched_off_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """By their names, and so is a name that no store has."""
    assert finding("mcpstore-2")["level"] == "warning"
    monkeypatch.setenv("STORESCOPE_DISABLED_STORES", f"{OURS},shlef")
    found = finding("STORESCOPE_DISABLED_STORES")
    assert "shlef" in str(found["text"])
    assert "shelf" in str(found["advice"])


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize(
    ("target", "level", "words"),
    [("shelf:Shelf.call", "ok", "found, observed as tools/call"), ("shelf:Shelf.gone", "problem", "no such name"),
     ("nowhere:call", "warning", "there is no module nowhere")],
)  # fmt: skip
def test_callables_that_the_user_names_are_looked_up(
    monkeypatch: pytest.MonkeyPatch, target: str, level: str, words: str
) -> None:
    """Each of STORESCOPE_TARGETS is found or not."""
    monkeypatch.setenv("STORESCOPE_TARGETS", f"{target}=tools/call")
    found = finding("STORESCOPE_TARGETS")
    assert (found["level"], words in str(found["text"])) == (level, True)


@pytest.mark.parametrize(
    ("source", "error"), [("1 / 0", "ZeroDivisionError"), ("raise SystemExit(5)", "exit code 5")]
)
def test_a_named_callable_whose_module_is_broken_is_a_problem(
    site: Path, monkeypatch: pytest.MonkeyPatch, source: str, error: str
) -> None:
    """What its import raises is shown."""
    (site / "crashing.py").write_text(source)
    monkeypatch.setenv("STORESCOPE_TARGETS", "crashing:call=tools/call")
    assert error in str(finding("STORESCOPE_TARGETS", code=1)["text"])


THEIRS = "[opentelemetry_distro]\ndistro = theirs:D\n[opentelemetry_configurator]\nconfigurator = theirs:C\n"


def test_releases_of_opentelemetry_that_do_not_fit_are_a_warning(site: Path) -> None:
    """As where one of them was installed later, with another in tow."""
    install(site, "opentelemetry-api", "1.0.1")
    found = finding("OpenTelemetry", code=0)
    assert found["level"] == "warning"
    assert "needs opentelemetry-api" in str(found["text"])
    assert "and 1.0.1 is installed" in str(found["text"])


@pytest.mark.parametrize(
    ("subject", "variable", "other"),
    [
        ("distro", "OTEL_PYTHON_DISTRO", "distro"),
        ("configurator", "OTEL_PYTHON_CONFIGURATOR", "configurator"),
    ],
)
def test_the_distribution_in_force_is_named(
    site: Path, monkeypatch: pytest.MonkeyPatch, subject: str, variable: str, other: str
) -> None:
    """Beside another one it is ours for certain only where the variable says so."""
    assert finding(subject)["level"] == "ok"
    install(site, "opentelemetry-distro", "0.66b2", entry_points=THEIRS)
    assert finding(subject)["level"] == "ok"
    monkeypatch.setenv(variable, other)
    assert f"{other} (opentelemetry-distro" in str(finding(subject)["text"])
    monkeypatch.delenv(variable)
    found = finding(subject, code=0)
    assert found["level"] == "warning"
    assert "OTEL_PYTHON_DISTRO=storescope OTEL_PYTHON_CONFIGURATOR=storescope" in str(found["advice"])
    monkeypatch.setenv(variable, "gone")
    assert finding(subject, code=1)["level"] == "problem"


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("names", ["storescope", "requests, storescope", "*"])
def test_an_instrumentation_that_is_left_out_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, names: str
) -> None:
    """The launcher would load everything but ours."""
    monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", names)
    assert finding("instrumentation", code=1)["level"] == "problem"


def test_the_command_on_path_is_that_of_this_environment(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is missing, or another one's: both are said, with what to type."""
    assert finding("opentelemetry-instrument")["level"] == "ok"
    monkeypatch.setenv("PATH", str(tmp_path))
    found = finding("opentelemetry-instrument", code=0)
    assert (found["level"], found["text"]) == ("warning", "is not on PATH")
    assert sysconfig.get_path("scripts") in str(found["advice"])
    name = "opentelemetry-instrument" + (".exe" if sys.platform == "win32" else "")
    (tmp_path / name).write_text("")
    (tmp_path / name).chmod(0o755)
    assert "another environment" in str(finding("opentelemetry-instrument")["text"])


def test_a_receiver_that_accepts_is_said(endpoint: Callable[[Receiver], None]) -> None:
    """It was asked with an export of nothing, of each signal."""
    with http_receiver() as receiver:
        endpoint(receiver)
        found = finding("traces", code=0)
    assert found["level"] == "ok"
    assert f"{receiver.endpoint}/v1/traces, which accepts them: OTEL_EXPORTER_OTLP_ENDPOINT is set" in str(
        found["text"]
    )
    assert (receiver.requests, receiver.spans) == (["traces", "metrics"], [])


def test_a_signal_that_is_not_taken_is_a_warning(endpoint: Callable[[Receiver], None]) -> None:
    """Jaeger's metrics go to the files, which is worth knowing."""
    with http_receiver(lambda signal, earlier: 200 if signal == "traces" else 404) as receiver:
        endpoint(receiver)
        found = finding("metrics", code=0)
    assert found["level"] == "warning"
    assert "takes no metrics (HTTP 404): they go to the local files" in str(found["text"])


@pytest.mark.parametrize(
    ("status", "advice"), [(401, "OTEL_EXPORTER_OTLP_HEADERS"), (500, "receiver's own log")]
)
def test_a_receiver_that_refuses_is_a_problem(
    endpoint: Callable[[Receiver], None], status: int, advice: str
) -> None:
    """With its answer, and where to look."""
    with http_receiver(lambda signal, earlier: Reply(status)) as receiver:
        endpoint(receiver)
        found = finding("traces", code=1)
    assert f"answers HTTP {status}" in str(found["text"])
    assert advice in str(found["advice"])


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_an_endpoint_where_nobody_listens_is_a_problem(
    endpoint: Callable[[Receiver], None], monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """Telemetry is kept meanwhile, and the advice says so."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    with refused_port() as nobody:
        endpoint(nobody)
        found = finding("traces", code=1)
    assert "refuse" in str(found["text"]).lower()
    assert "OTEL_EXPORTER_OTLP_ENDPOINT is set" in str(found["text"])
    assert "kept in the local files" in str(found["advice"])


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_an_endpoint_that_never_answers_is_a_problem(
    endpoint: Callable[[Receiver], None], monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """The examination ends all the same."""
    monkeypatch.setattr(destinations, "_TIMEOUT", 0.2)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    with hanging_receiver() as hanging:
        endpoint(hanging)
        assert finding("traces", code=1)["level"] == "problem"


def test_a_grpc_receiver_is_called(
    endpoint: Callable[[Receiver], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export of nothing is accepted, or the service is not there."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with grpc_receiver(refused=frozenset({"metrics"})) as receiver:
        endpoint(receiver)
        _, findings = examine()
    levels = {found["subject"]: (found["level"], found["text"]) for found in findings}
    assert levels["traces"][0] == "ok"
    assert levels["metrics"][0] == "warning"
    assert "takes no metrics (gRPC UNIMPLEMENTED)" in str(levels["metrics"][1])
    assert receiver.requests == ["traces", "metrics"]


@pytest.mark.parametrize("asked_by", ["http/protobuf", "grpc"])
def test_the_wrong_protocol_is_a_problem(
    endpoint: Callable[[Receiver], None], monkeypatch: pytest.MonkeyPatch, asked_by: str
) -> None:
    """HTTP asked of a gRPC port, or gRPC of an HTTP port."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", asked_by)
    with grpc_receiver() if asked_by != "grpc" else http_receiver() as receiver:
        endpoint(receiver)
        assert finding("traces", code=1)["level"] == "problem"


@pytest.mark.usefixtures("site")
def test_signals_that_go_elsewhere_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """To nowhere, to somebody else's exporter, or to one that does not exist."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "console")
    assert "go nowhere: OTEL_TRACES_EXPORTER says none" in str(finding("traces", code=0)["text"])
    assert "go to the exporter console" in str(finding("metrics")["text"])
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "jaegre")
    assert "'jaegre'" in str(finding("storescope says", code=0)["text"])


def test_a_check_that_fails_leaves_the_others_alone(
    endpoint: Callable[[Receiver], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its error is a finding."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", "nowhere.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint(Receiver(f"https://127.0.0.1:{listener.getsockname()[1]}"))
        found = finding("signals", code=1)
    assert "could not be examined: FileNotFoundError" in str(found["text"])


def test_the_folder_of_local_files_is_examined(site: Path, tmp_path: Path) -> None:
    """That it can be made, what is in it, and how much more may be."""
    assert finding("local files")["text"] == f"{tmp_path / '.storescope'} does not exist yet, and can be made"
    folder = tmp_path / ".storescope"
    folder.mkdir(0o700)
    (folder / "traces-1.jsonl").write_bytes(b"x" * 2000)
    assert finding("local files")["text"] == f"{folder} has 1 file, 2.00 kB of 268 MB; the oldest go first"
    assert [file.name for file in folder.iterdir()] == ["traces-1.jsonl"]


@needs_posix
def test_a_folder_that_others_can_read_is_a_warning(site: Path, tmp_path: Path) -> None:
    """With the command that makes it private."""
    (tmp_path / ".storescope").mkdir()
    (tmp_path / ".storescope").chmod(0o755)
    _, findings = examine()
    found = [found for found in findings if found["subject"] == "local files" and found["level"] == "warning"]
    assert found[0]["advice"] == f"Run: chmod 700 {tmp_path / '.storescope'}"


@needs_posix
@pytest.mark.usefixtures("site")
def test_a_folder_that_cannot_be_written_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Because of a file in its place or above it, a link, or permissions."""
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)
    places = {"file": "is no folder", "file/below": "is no folder", "link": "is a symbolic link"}
    if os.geteuid() != 0:  # root may write everywhere
        (tmp_path / "closed").mkdir(0o500)
        places |= {"closed": "cannot be written to", "closed/below": "cannot be made"}
    for place, words in places.items():
        monkeypatch.setenv("STORESCOPE_DIR", str(tmp_path / place))
        found = finding("local files", code=1)
        assert words in str(found["text"])


@pytest.mark.usefixtures("site")
def test_a_disk_without_room_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the folder may hold has to fit on its disk."""
    (tmp_path / ".storescope").mkdir(0o700)
    monkeypatch.setenv("STORESCOPE_DIR_MAX_BYTES", str(10**18))
    assert "is free on its disk" in str(finding("local files", code=0)["text"])


@pytest.mark.usefixtures("site")
def test_a_bad_value_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named with what is allowed, once."""
    monkeypatch.setenv("STORESCOPE_EXIT_TIMEOUT", "soon")
    found = finding("STORESCOPE_EXIT_TIMEOUT", code=1)
    assert found["text"] == "'soon' is not seconds, 0 or more; using the default (1)"
    assert found["advice"] == "Set it to seconds, 0 or more, or unset it."


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize(
    ("variable", "value"), [("OTEL_SDK_DISABLED", "true"), ("STORESCOPE_ENABLED", "off")]
)
def test_a_switch_that_is_off_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """Who wonders why nothing is recorded finds it here."""
    monkeypatch.setenv(variable, value)
    assert finding(variable, code=1)["advice"] == f"Unset {variable}."


@pytest.mark.parametrize(
    "package", ["opentelemetry-instrumentation-mcp", "openinference-instrumentation-mcp"]
)
def test_another_instrumentation_of_mcp_is_a_warning(
    site: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    """One that the launcher loads, until it is told to leave it out."""
    install(site, package, entry_points="[opentelemetry_instrumentor]\nmcp = theirs:Instrumentor\n")
    found = finding(package, code=0)
    assert found["level"] == "warning"
    assert "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=mcp" in str(found["advice"])
    monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "mcp")
    assert finding(package)["level"] == "ok"


@pytest.mark.parametrize("package", ["ddtrace", "sentry-sdk", "logfire", "openlit", "gevent", "eventlet"])
def test_packages_that_get_in_the_way_are_warnings(site: Path, package: str) -> None:
    """Each with what it does and how to switch that off."""
    install(site, package, "7.1")
    found = finding(package, code=0)
    assert found["level"] == "warning"
    assert "7.1" in str(found["text"])
    assert found["advice"]


def test_gevent_is_seen_at_work(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that it has patched is told from one where it is installed, and patching early is right."""
    install(site, "gevent", "25.1")
    monkeypatch.setitem(sys.modules, "gevent.monkey", SimpleNamespace(saved={"socket": {}}))
    assert "has patched this process" in str(finding("gevent")["text"])
    monkeypatch.setenv("OTEL_PYTHON_AUTO_INSTRUMENTATION_EXPERIMENTAL_GEVENT_PATCH", "patch_all")
    assert finding("gevent")["level"] == "ok"


def test_a_release_of_no_known_generation_is_a_problem(site: Path) -> None:
    """Of mcpstore, there are 1.5.x and 2.x."""
    install(site, "mcpstore", "1.4.9")
    assert finding("mcpstore", code=1)["text"] == "1.4.9 is of no generation that storescope knows"


@pytest.mark.usefixtures("site")
def test_a_frozen_program_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher does not reach it."""
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert finding("frozen program", code=0)["level"] == "warning"


@pytest.mark.usefixtures("site")
def test_the_documentation_names_every_section_and_key() -> None:
    """docs/doctor.md leaves out no section and no key of the JSON."""
    text = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text("utf-8")
    document = json.loads(storescope("doctor", "--json").stdout)
    section = document["sections"][0]
    for key in (*document, *section, *section["findings"][0]):
        assert f"`{key}`" in text
    for section in document["sections"]:
        assert f"| {section['name']} |" in text


@pytest.mark.usefixtures("site")
def test_a_narrow_terminal_folds_the_findings() -> None:
    """Text and advice stand in a column of their own, whatever the width."""
    from storescope.cli.doctor import examine as diagnose
    from storescope.cli.doctor import render
    from storescope.cli.timeline import ASCII

    lines = [line.plain for line in render(diagnose(), ASCII, 60)]
    assert max(map(len, lines)) <= 60
    assert any(line.startswith("+ distro") for line in lines)
    assert any(line.startswith("! mcpstore-1") for line in lines)
