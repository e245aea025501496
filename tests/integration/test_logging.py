"""Log records reach OpenTelemetry's handlers although a store takes the root logger's handlers away."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from integration.harness import Runner
from integration.recording import Recorder
from receivers import http_receiver

import storescope

pytestmark = pytest.mark.anystore

#: Sets a store up in the way that its users do; twice, and by the async face where there is one.
SET_UP = """
import asyncio, json, logging, sys, warnings
warnings.simplefilter("ignore")
import mcpstore

with open("mcp.json", "w") as config:
    config.write('{"mcpServers": {}}')

def set_up(**options):
    if hasattr(mcpstore, "FileConfig"):
        mcpstore.MCPStore.setup_store(mcpstore.FileConfig(path="mcp.json"), **options)
    else:
        mcpstore.MCPStore.setup_store(mcpjson_path="mcp.json", **options)
        asyncio.run(mcpstore.MCPStore.setup_store_async(mcpjson_path="mcp.json", **options))
"""

EXPORTED = f"""{SET_UP}
shop = logging.getLogger("shop")
shop.warning("before")
set_up()
shop.warning("after")
shop.info("below the level")
set_up(debug="ERROR")
shop.warning("after another")
"""


def test_records_are_exported_as_before(runner: Runner) -> None:
    """The handler that the SDK put at the root logger gets what it got before, at the level that it was."""
    with http_receiver() as receiver:
        env = {
            "OTEL_LOGS_EXPORTER": "otlp",
            "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        }
        finished = runner.run(EXPORTED, env=env, timeout=30, attempts=3).check()

    assert receiver.logs == ["before", "after", "after another"]
    assert "after" not in finished.stderr


#: Has an OpenTelemetry handler of its own beside one for people, and prints what came to the former.
CONSOLE = f"""{SET_UP}
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler, LogRecordProcessor

records = []

class Keep(LogRecordProcessor):
    def on_emit(self, data):
        records.append(data.log_record.body)
    def shutdown(self):
        pass
    def force_flush(self, timeout_millis=0):
        return True

provider = LoggerProvider()
provider.add_log_record_processor(Keep())
root = logging.getLogger()
root.addHandler(logging.StreamHandler())
root.addHandler(LoggingHandler(logger_provider=provider))
logging.error("before")
set_up()
logging.error("after")
logging.basicConfig(level=logging.INFO)
logging.error("after basicConfig")
logging.basicConfig(level=logging.INFO, force=True, format="%(message)s")
logging.info("after basicConfig with force")
print(json.dumps(records))
"""


def test_nothing_new_is_on_the_console_and_basic_config_does_what_it_did(runner: Runner) -> None:
    """With the agent and without: the same lines, before and after `basicConfig()`, with and without `force`."""
    without = runner.run(CONSOLE, launcher=False, timeout=30, attempts=3).check()
    with_agent = runner.run(CONSOLE, timeout=30, attempts=3).check()

    shown = ["before", "after basicConfig with force"]
    assert [line for line in without.stderr.splitlines() if line.startswith(("before", "after"))] == shown
    assert [line for line in with_agent.stderr.splitlines() if line.startswith(("before", "after"))] == shown
    assert json.loads(without.stdout) == ["before"]
    assert json.loads(with_agent.stdout) == ["before", "after", "after basicConfig"]


STATE = f"""{SET_UP}
set_up()
root = logging.getLogger()
print(json.dumps([root.level, [str(handler) for handler in root.handlers]]))
"""


def test_where_no_handler_of_opentelemetry_was_nothing_is_touched(runner: Runner) -> None:
    """The root logger is what the store makes of it."""
    with_agent = runner.run(STATE, timeout=30, attempts=3).check()
    without = runner.run(STATE, launcher=False, timeout=30, attempts=3).check()

    assert with_agent.stdout == without.stdout


class Exporting(logging.Handler):
    """Stands for the handlers of OpenTelemetry: of the SDK, of instrumentations, and of those who derive from them."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


Exporting.__module__ = "opentelemetry.instrumentation.logging.handler"


class Derived(Exporting):
    """One that an application made of it."""


@pytest.fixture
def root() -> logging.Logger:
    """The root logger, with nothing but its level; it is put back afterwards."""
    logger = logging.getLogger()
    logger.handlers.clear()
    logger.setLevel(logging.WARNING)
    return logger


@pytest.fixture
def setup_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What `setup_store()` sets logging up by, as in a process that has not done it yet."""
    from mcpstore.config.config import LoggingConfig

    monkeypatch.setattr(LoggingConfig, "_configured", False)
    levels = {name: logging.getLogger(name).level for name in logging.root.manager.loggerDict}
    yield lambda debug=False: LoggingConfig.setup_logging(debug=debug)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize("kind", [Exporting, Derived])
def test_handler_and_level_are_back_however_often_a_store_is_set_up(
    kind: type[Exporting], root: logging.Logger, recorder: Recorder, setup_logging: Any
) -> None:
    """Also where the store only changes the levels of what it finds, and where the agent is paused."""
    kept = kind()
    kept.setLevel(logging.INFO)
    root.addHandler(kept)
    for pause, debug in ((False, False), (False, "ERROR"), (True, "CRITICAL"), (False, False)):
        if pause:
            storescope.pause()
        setup_logging(debug)
        assert (root.level, kept.level) == (logging.WARNING, logging.INFO)
        assert root.handlers.count(kept) == 1
        logging.getLogger("shop").warning("record")
    assert kept.texts == ["record"] * 4


def test_a_level_that_the_application_asks_the_store_for_is_kept(
    root: logging.Logger, recorder: Recorder, setup_logging: Any
) -> None:
    """A lower one than before, for as long as it is asked for."""
    root.addHandler(Exporting())
    setup_logging("DEBUG")
    assert root.level == logging.DEBUG
    setup_logging(False)
    assert root.level == logging.WARNING
    root.setLevel(logging.ERROR)
    setup_logging("CRITICAL")
    assert root.level == logging.ERROR


def test_undone_it_is_what_the_store_made_of_it(
    root: logging.Logger, recorder: Recorder, setup_logging: Any
) -> None:
    """After `uninstrument()` the root logger is as without the agent, and the store's function is its own."""
    from mcpstore.config.config import LoggingConfig

    kept = Exporting()
    root.addHandler(kept)
    setup_logging()
    recorder.uninstrument()
    assert root.level > logging.CRITICAL
    assert kept not in root.handlers
    assert isinstance(vars(LoggingConfig)["setup_logging"], classmethod)

    recorder.instrument()
    root.addHandler(kept)
    root.setLevel(logging.INFO)
    recorder.uninstrument()
    setup_logging("ERROR")
    assert root.level == logging.ERROR


def test_nothing_is_undone_over_what_the_application_has_set_since(
    root: logging.Logger, recorder: Recorder, setup_logging: Any
) -> None:
    """A level, handlers: they stay as they are."""
    root.addHandler(Exporting())
    setup_logging()
    root.handlers[:] = theirs = [logging.NullHandler()]
    root.setLevel(logging.INFO)
    recorder.uninstrument()
    assert (root.handlers, root.level) == (theirs, logging.INFO)


def test_an_agent_that_is_switched_off_leaves_logging_alone(runner: Runner) -> None:
    """With `STORESCOPE_ENABLED=off` no record reaches the handler after a store was set up."""
    finished = runner.run(CONSOLE, env={"STORESCOPE_ENABLED": "off"}, timeout=30, attempts=3).check()

    assert json.loads(finished.stdout) == ["before"]


def test_what_the_agent_says_is_still_heard(
    root: logging.Logger, recorder: Recorder, setup_logging: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody reads its warnings in telemetry alone."""
    root.addHandler(Exporting())
    setup_logging()
    logging.getLogger("storescope").warning("storescope: metrics are lost")
    assert capsys.readouterr().err == "storescope: metrics are lost\n"
