"""What the sampler does to the interpreter that it looks into: threads, switch interval, collection, forks, exit."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from unit.profiled import first_part, names, second_part, spin, wait_for

from storescope.core.errors import Closed
from storescope.core.profiling.profile import Profile
from storescope.core.profiling.sampler import Sampler


@pytest.fixture(autouse=True)
def switch_interval() -> Iterator[None]:
    """Each test finds the interval as it left it."""
    before = sys.getswitchinterval()
    yield
    after = sys.getswitchinterval()
    sys.setswitchinterval(before)
    assert after == before


@pytest.fixture
def quick() -> Iterator[Sampler]:
    """One that looks often, where shares do not matter."""
    with Sampler(rate=500) as sampler:
        yield sampler


def test_it_parks_while_there_is_nothing_to_look_at() -> None:
    """Without operations the thread does not exist, or sleeps without an end; the next operation wakes it."""
    with Sampler(rate=500, name="parking") as sampler:
        assert "storescope-parking" not in thread_names()
        assert repr(sampler) == "<Sampler 'parking': parked, 0 operations>"
        with sampler.operation("work"):
            spin(0.02)
            assert repr(sampler) == "<Sampler 'parking': 500 Hz, 1 operations>"
            assert "storescope-parking" in thread_names()
        wait_for(lambda: sampler.stats().parked)
        ticks, switches = sampler.stats().ticks, thread_switches("storescope-parking")
        time.sleep(0.1)
        assert (sampler.stats().ticks, thread_switches("storescope-parking")) == (ticks, switches)
        with sampler.operation("work") as operation:
            spin(0.05)
        assert operation.profile().seconds > 0.02
    assert "storescope-parking" not in thread_names()
    assert repr(sampler) == "<Sampler 'parking': closed, 0 operations>"


def thread_names() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def thread_switches(name: str) -> str:
    """Return how often a thread was let run, as Linux counts it; nothing elsewhere."""
    (thread,) = [thread for thread in threading.enumerate() if thread.name == name]
    try:
        status = Path(f"/proc/self/task/{thread.native_id}/status").read_text("utf-8")
    except OSError:
        return ""
    return "".join(line for line in status.splitlines() if "ctxt_switches" in line)


def test_the_switch_interval_is_given_back(quick: Sampler) -> None:
    """It is 1 ms while operations are open, and what it was afterwards."""
    before = sys.getswitchinterval()
    with quick.operation("work"):
        spin(0.02)
        assert sys.getswitchinterval() == pytest.approx(0.001, rel=0.01)
    wait_for(lambda: quick.stats().parked)
    assert sys.getswitchinterval() == before


def test_busy_threads_do_not_keep_it_from_looking(quick: Sampler) -> None:
    """Of operations that use the CPU in several threads most of the time is seen, whoever has the GIL."""

    def work() -> Profile:
        with quick.operation("work") as operation:
            spin(0.1)
        return operation.profile()

    for _ in range(5):
        with ThreadPoolExecutor(3) as executor:
            profiles = [future.result() for future in [executor.submit(work) for _ in range(3)]]
        assert all(profile.seconds > 0.5 * profile.duration for profile in profiles)


@pytest.mark.parametrize("own", [0.001, 0.02, 0.0005])
def test_what_the_application_sets_meanwhile_stays(quick: Sampler, own: float) -> None:
    """A switch interval that the application sets while operations are open is not overwritten."""
    before = sys.getswitchinterval()
    try:
        with quick.operation("work"):
            spin(0.02)
            sys.setswitchinterval(own)
            spin(0.02)
        wait_for(lambda: quick.stats().parked)
        assert sys.getswitchinterval() == pytest.approx(own)
    finally:
        sys.setswitchinterval(before)


def test_two_samplers_share_the_switch_interval() -> None:
    """The first to close leaves it short for the other; the last one gives it back."""
    before = sys.getswitchinterval()
    with Sampler(rate=500) as first, Sampler(rate=500) as second:
        with first.operation("a"), second.operation("b"):
            spin(0.02)
            first.close()
            assert sys.getswitchinterval() < before
        wait_for(lambda: second.stats().parked)
        assert sys.getswitchinterval() == before


def test_an_abandoned_operation_is_forgotten(quick: Sampler) -> None:
    """A coroutine that nobody finishes is not kept alive by being sampled."""

    class Held:
        pass

    async def abandoned(held: Held) -> None:
        with quick.operation("abandoned"):
            await asyncio.sleep(0)
            await asyncio.get_running_loop().create_future()

    async def main() -> weakref.ref[Held]:
        held = Held()
        coroutine = abandoned(held)
        coroutine.send(None)
        spin(0.02)
        assert quick.stats().operations == 1
        return weakref.ref(held)

    reference = asyncio.run(main())
    wait_for(lambda: gc.collect() >= 0 and reference() is None)
    assert quick.stats().operations == 0


COLLECTING = """
import gc, threading, time
from storescope.core.profiling.sampler import Sampler

class Cycle:
    alive = 0
    def __init__(self):
        self.itself = self
        Cycle.alive += 1
    def __del__(self):
        Cycle.alive -= 1
        time.sleep(0.0002)  # other threads go on, and leave the frames that they were in

def dive(depth):
    if depth:
        return dive(depth - 1)
    if Cycle.alive < 20:  # collections do not come to an end where garbage is made faster
        Cycle()
    return [[] for _ in range(10)]

def work():
    while time.monotonic() < end:
        with sampler.operation("dive"):
            dive(60)

gc.freeze()
gc.set_threshold(100, 1000, 1000)
end = time.monotonic() + 1.5
with Sampler(rate=1000) as sampler:
    threads = [threading.Thread(target=work) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sampler.stats().ticks > 20, sampler.stats()
assert gc.get_threshold() == (100, 1000, 1000) and gc.isenabled(), gc.get_threshold()
"""


def test_frames_can_be_walked_while_garbage_is_collected() -> None:
    """Threads that call deeply, make cycles with finalizers and collect do not crash a sampler at 1,000 Hz.

    On 3.11 it crashes within seconds where a collection can begin during a walk.
    """
    ran = subprocess.run(
        [sys.executable, "-c", COLLECTING], check=False, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, (ran.returncode, ran.stderr)


def test_the_applications_collection_is_left_as_it_wants_it(quick: Sampler) -> None:
    """Whatever it does with gc.disable, gc.enable and thresholds while it is sampled holds."""
    before = gc.get_threshold()
    try:
        with quick.operation("work"):
            for turn in range(400):
                (gc.disable if turn % 2 else gc.enable)()
                gc.set_threshold(1000 + turn, 11, 12)
                spin(0.0005)
                assert gc.isenabled() is not bool(turn % 2)
        assert gc.get_threshold() == (1399, 11, 12)
    finally:
        gc.enable()
        gc.set_threshold(*before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_samples_its_own(quick: Sampler) -> None:
    """A child has its switch interval back, ends the parent's operation in peace, and samples what it opens."""
    before = sys.getswitchinterval()
    with quick.operation("parent") as parent:
        spin(0.02)
        child = os.fork()
        if not child:
            signal.alarm(10)
            fine = sys.getswitchinterval() == before and quick.stats().operations == 0
            with quick.operation("child") as operation:
                first_part(0.1)
            fine = fine and "first_part" in names(operation.profile())
            parent.__exit__(None, None, None)
            quick.close()
            os._exit(0 if fine else 1)
        assert os.waitpid(child, 0)[1] == 0
        spin(0.02)
    assert "first_part" not in names(parent.profile())


@pytest.mark.parametrize("ending", ["", "raise SystemExit", "import os; os.kill(os.getpid(), 2)"])
def test_an_interpreter_ends_while_it_is_sampled(ending: str) -> None:
    """An open operation and a running sampler keep no interpreter from ending, and leave no message."""
    program = f"""
import threading, time
from storescope.core.profiling.sampler import Sampler
sampler = Sampler(rate=1000)
def hold():
    with sampler.operation("held"):
        time.sleep(60)
threading.Thread(target=hold, daemon=True).start()
with sampler.operation("work"):
    time.sleep(0.05)
    {ending}
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=20
    )
    assert ran.returncode == (-2 if "kill" in ending else 0)
    assert ("KeyboardInterrupt" in ran.stderr) if "kill" in ending else (ran.stderr == "")


def test_after_close_nothing_is_sampled(quick: Sampler) -> None:
    """Operations under way end in peace and keep what was seen; new ones are refused; closing twice is fine."""
    with quick.operation("work") as operation:
        spin(0.05)
        quick.close()
        quick.close()
        second_part(0.05)
    assert operation.profile().seconds < operation.profile().duration
    assert "second_part" not in names(operation.profile())
    with pytest.raises(Closed, match="sampler is closed"):
        quick.operation("more")


@pytest.mark.parametrize("wrong", ["0.5", float("nan")])
def test_a_failing_random_turns_it_off(wrong: object, caplog: pytest.LogCaptureFixture) -> None:
    """Where `random` gives no number any more, the sampler says so and is off; the program goes on."""
    numbers = iter([0.5, 0.5])
    with Sampler(rate=500, random=lambda: next(numbers, wrong)) as sampler:  # type: ignore[arg-type]
        with sampler.operation("work"):
            wait_for(lambda: sampler.off is not None)
        with sampler.operation("more") as operation:
            pass
        assert operation.profile().samples == ()
        assert repr(sampler).startswith("<Sampler 'sampler': off, random() must be ")
    assert "sampler samples nothing any more" in caplog.text


def test_it_is_off_without_the_gil(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the GIL it says why it is off, and its operations do nothing."""
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    with pytest.warns(RuntimeWarning, match="sampler samples nothing: this interpreter runs without the GIL"):
        sampler = Sampler()
    with sampler.operation("work") as operation:
        pass
    assert operation.profile().samples == ()
    assert "storescope-sampler" not in thread_names()
    assert repr(sampler) == "<Sampler 'sampler': off, this interpreter runs without the GIL, 0 operations>"
