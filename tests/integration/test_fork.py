"""Forked children: those that set up a store of their own, and those that go on with their parent's."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest
from integration.anystore import SET_UP
from integration.harness import Runner

pytestmark = [
    pytest.mark.anystore,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
]

OWN_STORE = f"""{SET_UP}
child = os.fork()
if child == 0:
    set_up().call_tool("lab_echo", {{"text": "hi"}})
    sys.exit()
print(json.dumps([child, os.waitpid(child, 0)[1]]))
"""


def test_a_childs_own_store_is_observed(runner: Runner) -> None:
    """Its spans and its records are exported, under the program's name, from the child's own files."""
    finished = runner.run(OWN_STORE, timeout=20, attempts=3).check()

    child, status = json.loads(finished.stdout)
    assert status == 0
    (call,) = [span for span in finished.spans() if span.kind == "CLIENT"]
    assert (call.name, call.status) == ("tools/call echo", "UNSET")
    assert call.resource["service.name"] == "app"
    assert [path for path in finished.directory.glob("traces-*.jsonl") if f"-{child}-" in path.name]
    assert [
        point.count for point in finished.points() if point.metric == "mcp.client.operation.duration"
    ] == [1]
    assert "forked" not in finished.stderr


#: Has children of a process with a store call a tool through it, set up a store, and do nothing. They are ended when
#: they have had the time to say something. What a child sets up can crash its parent, so that comes last.
PARENTS_STORE = f"""{SET_UP}
store = set_up()

def in_child(work):
    child = os.fork()
    if child == 0:
        signal.setitimer(signal.ITIMER_REAL, 1.2)
        work()
        os._exit(0)
    print(json.dumps([child, os.waitpid(child, 0)[1]]), flush=True)

in_child(lambda: store.call_tool("lab_echo", {{}}))
in_child(lambda: None)
in_child(lambda: set_up("child.json"))
os._exit(0)
"""


def test_in_a_child_of_a_process_with_a_store_one_line_says_that_none_works(runner: Runner) -> None:
    """What is called there hangs, with the agent or without, and is warned about before; silence where nothing is."""
    finished = runner.run(PARENTS_STORE, timeout=20, attempts=3).check()

    children = [json.loads(line) for line in finished.stdout.splitlines()]
    (called, hung), idle = children[0], children[1]
    lines = [line for line in finished.stderr.splitlines() if "forked" in line]
    assert len(lines) == 2
    assert lines[0].startswith(
        f"storescope: a store is used in process {called}, which was forked after one had been set up; "
    )
    assert hung == signal.SIGALRM
    assert idle[1] == 0


COUNTS = """
import os, sys, warnings

warnings.simplefilter("ignore")
from opentelemetry import metrics
from storescope.instrumentation import StorescopeInstrumentor
operations = StorescopeInstrumentor()._patcher.telemetry.operations
theirs = metrics.get_meter("application").create_counter("theirs")
for _ in range(3):
    operations.record(0.1)
    theirs.add(1)
child = os.fork()
if child == 0:
    operations.record(0.1)
    theirs.add(1)
    sys.exit()
os.waitpid(child, 0)
"""


def test_a_childs_metrics_start_from_zero(runner: Runner) -> None:
    """What the parent had counted before the fork is not counted a second time; others' instruments are left alone."""
    finished = runner.run(COUNTS).check()

    counts = sorted(int(count) for count in re.findall(r'"count":"(\d+)"', finished.written()))
    assert counts == [1, 3]
    theirs = sorted(int(count) for count in re.findall(r'"asInt":"(\d+)"', finished.written()))
    assert theirs == [3, 4]


def test_where_the_sdk_keeps_its_counts_otherwise_a_child_goes_on_from_its_parents(runner: Runner) -> None:
    """A release without what is used to forget them is no reason to fail."""
    source = COUNTS.replace(
        "child = os.fork()", "del metrics.get_meter_provider()._measurement_consumer\nchild = os.fork()"
    )
    finished = runner.run(source).check()

    counts = sorted(int(count) for count in re.findall(r'"count":"(\d+)"', finished.written()))
    assert counts == [3, 4]
    assert finished.stderr == ""
