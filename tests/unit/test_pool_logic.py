"""What a pool of connections decides, on a clock of the test's own and without a single connection."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from storescope.core.connections.pool_logic import PoolLogic
from storescope.core.connections.pool_options import PoolOptions
from storescope.core.connections.pool_parts import LIMITS, Action, Entry, Job, Waiter
from storescope.core.errors import ConnectFailed, NotFromPool, PoolClosed, PoolTimeout, QueueFull


class Thing:
    """Something to hold."""

    def __init__(self) -> None:
        self.alive = True
        self.closed = 0

    def is_alive(self) -> bool:
        return self.alive

    def ping(self) -> None: ...


class Note(Waiter):
    """A waiter that waits for nothing."""

    woken = 0

    def wake(self) -> None:
        self.woken += 1


class Desk:
    """A pool's logic with somebody who does its jobs, when told to."""

    def __init__(self, min_size: int = 0, max_size: int = 3, **options: Any) -> None:
        self.now = 1000.0
        self.prompt = True
        told: dict[str, Any] = {
            "max_idle_time": 300.0,
            "max_lifetime": 3600.0,
            "max_waiting": 0,
            "validate_after": 30.0,
            "name": "pool",
        }
        self.logic = PoolLogic(min_size, max_size, PoolOptions(**(told | options)), lambda: 0.5)
        self.things: list[Thing] = []
        self.begun: list[Job] = []
        self.due = self.tick()

    def tick(self, seconds: float = 0.0) -> float:
        self.now += seconds
        jobs, self.due = self.logic.tick(self.now)
        self.begun += jobs
        return self.due

    def run(self, error: Exception | None = None) -> None:
        """Do what has begun, and what follows from it."""
        begun, self.begun = self.begun, []
        for job in begun:
            self.end(job, error)
        self.tick()

    def end(self, job: Job | None, error: Exception | None = None) -> None:
        while job is not None:
            value = None
            if job.action is Action.CLOSE:
                job.target.closed += 1
            elif job.action is Action.OPEN and error is None:
                value = Thing()
                self.things.append(value)
            job = self.logic.finish(job, value, error, self.now)

    def settle(self, error: Exception | None = None) -> None:
        """Work until nothing is left to be done now."""
        self.tick()
        for _ in range(50):
            if not self.begun:
                return
            self.run(error)
        raise AssertionError("the pool never comes to rest")

    def get(self, holder: object) -> Entry | Note:
        """A connection, or somebody's place in the queue."""
        while (entry := self.logic.take(holder, self.now)) is not None:
            if entry.alive():
                return entry
            self.logic.reject(entry, self.now)
        note = Note()
        self.logic.join(holder, note, self.now)
        self.work()
        return note

    def give(self, entry: Entry) -> None:
        self.logic.give(entry, entry.holder, self.now, entry.alive())
        self.work()

    def work(self) -> None:
        """What a worker does when it is woken, which may be later."""
        if self.prompt:
            self.tick()


def test_connections_above_min_size_are_closed_when_they_have_idled_long_enough() -> None:
    """The ones that idle longest go first, at the time that `tick` said, and never below `min_size`."""
    desk = Desk(min_size=1, max_size=3, max_idle_time=60.0, validate_after=math.inf)
    notes = [desk.get(holder) for holder in "abc"]
    desk.settle()
    for note in notes:
        assert isinstance(note, Note)
        assert note.entry is not None
        desk.give(note.entry)
        desk.tick(1.0)
    last = desk.logic.idle[-1]
    assert desk.due == pytest.approx(1000.0 + 60.0)
    desk.tick(desk.due - desk.now)
    desk.settle()
    assert desk.logic.total == 2
    desk.tick(600.0)
    desk.settle()
    assert desk.logic.idle == [last]
    assert [thing.closed for thing in desk.things] == [1, 1, 0]


def test_lifetimes_are_jittered_and_what_is_too_old_is_replaced() -> None:
    """With a random number of one half, a lifetime of 1,000 s ends after 950; the replacement keeps `min_size`."""
    desk = Desk(min_size=1, max_lifetime=1000.0, validate_after=math.inf)
    desk.settle()
    desk.tick(949.0)
    assert desk.things[0].closed == 0
    desk.tick(1.0)
    desk.settle()
    assert desk.things[0].closed == 1
    assert desk.logic.total == desk.logic.counts.created - 1 == 1


def test_idle_connections_are_pinged_one_at_a_time_and_the_dead_replaced() -> None:
    """After `validate_after` seconds each is pinged, with the others free meanwhile."""
    desk = Desk(min_size=2, validate_after=30.0)
    desk.settle()
    desk.tick(desk.due - desk.now)
    assert [job.action for job in desk.begun] == [Action.PING]
    assert desk.logic.stats().idle == 1
    assert desk.logic.stats().opening == 1
    desk.end(desk.begun.pop(), ConnectionError("gone"))
    desk.settle()
    stats = desk.logic.stats()
    assert (stats.idle, stats.invalid, stats.created, stats.closed) == (2, 1, 3, 1)


def test_what_idled_too_long_is_pinged_before_it_is_handed_out() -> None:
    """The caller waits for the ping; a connection that fails it is never seen by anybody."""
    desk = Desk(max_size=1, validate_after=30.0)
    first = desk.get("a")
    desk.settle()
    assert isinstance(first, Note)
    assert first.entry is not None
    desk.give(first.entry)
    desk.now += 31.0  # the timer is late
    second = desk.get("b")
    assert isinstance(second, Note)
    assert second.entry is None
    assert [job.action for job in desk.begun] == [Action.PING]
    desk.run(ConnectionError("gone"))
    desk.settle()
    assert second.entry is not None
    assert second.entry.connection is desk.things[1]
    assert desk.things[0].closed == 1


def test_what_is_too_old_is_not_handed_out_though_the_timer_is_late() -> None:
    """The caller gets a new one."""
    desk = Desk(min_size=1, max_lifetime=100.0, validate_after=math.inf)
    desk.settle()
    desk.now += 100.0
    note = desk.get("a")
    desk.settle()
    assert isinstance(note, Note)
    assert note.entry is not None
    assert [thing.closed for thing in desk.things] == [1, 0]


def test_while_the_server_is_away_one_attempt_at_a_time_is_made_ever_later() -> None:
    """The delays double from 0.1 to 5 s, less a quarter with a random number of one half."""
    desk = Desk(min_size=3)
    refused = ConnectionRefusedError(111, "Connection refused")
    assert len(desk.begun) == 3
    desk.run(refused)
    delays = []
    for _ in range(8):
        assert not desk.begun
        delays.append(round(desk.due - desk.now, 6))
        desk.tick(desk.due - desk.now)
        assert len(desk.begun) == 1
        desk.run(refused)
    assert delays == [0.075, 0.15, 0.3, 0.6, 1.2, 2.4, 3.75, 3.75]
    assert desk.logic.stats().connect_errors == 3 + 8
    desk.tick(5.0)
    desk.settle()
    assert desk.logic.stats().idle == 3


def test_a_waiter_is_told_what_happened() -> None:
    """Without any connection it is ConnectFailed, with some PoolTimeout, and the cause is the last error."""
    desk = Desk(max_size=2)
    note = desk.get("a")
    assert isinstance(note, Note)
    desk.run(ConnectionRefusedError(111, "Connection refused"))
    with pytest.raises(ConnectFailed) as failed:
        desk.logic.settle("a", note, 0.5)
    assert str(failed.value) == (
        "no connection of 'pool' after 0.5 s: 1 attempt to open one failed, the last with ConnectionRefusedError: "
        "[Errno 111] Connection refused (0 in use, 0 opening, 1 waiting)"
    )
    assert isinstance(failed.value.__cause__, ConnectionRefusedError)
    desk.tick(10.0)
    first, second = desk.get("b"), desk.get("c")
    desk.settle()
    third = desk.get("d")
    assert isinstance(first, Note)
    assert isinstance(second, Note)
    assert isinstance(third, Note)
    with pytest.raises(PoolTimeout, match=r"after 30\.0 s \(2 in use, 0 opening, 1 waiting\)") as busy:
        desk.logic.settle("d", third, 30)
    assert busy.value.__cause__ is None
    assert first.entry is not None
    first.entry.connection.alive = False
    desk.give(first.entry)
    last = desk.get("e")
    assert isinstance(last, Note)
    desk.run(ConnectionRefusedError(111, "Connection refused"))
    with pytest.raises(PoolTimeout, match="1 attempt to open one failed") as both:
        desk.logic.settle("e", last, 30)
    assert isinstance(both.value.__cause__, ConnectionRefusedError)


def test_work_that_hangs_is_given_up_and_what_comes_late_is_closed() -> None:
    """A server that freezes holds no place for ever, and attempts that hang do not pile up beyond `max_size`."""
    desk = Desk(min_size=1, max_size=2)
    hung = [desk.begun.pop()]
    while desk.now < 1000.0 + 20 * LIMITS[Action.OPEN]:
        desk.tick(desk.due - desk.now)
        hung += desk.begun
        desk.begun = []
        if desk.due == math.inf:
            break
    assert len(hung) == 2
    assert desk.logic.stats().total == 0
    for job in hung:
        desk.end(job)
    assert [thing.closed for thing in desk.things] == [1, 1]
    desk.tick(10.0)
    desk.settle()
    assert desk.logic.stats().idle == 1


def test_a_ping_that_hangs_costs_its_connection() -> None:
    """The connection is replaced, and the ping's late end changes nothing."""
    desk = Desk(min_size=1)
    desk.settle()
    desk.tick(30.0)
    ping = desk.begun.pop()
    desk.tick(LIMITS[Action.PING])
    desk.settle()
    assert (desk.things[0].closed, desk.logic.stats().idle) == (1, 1)
    desk.end(ping)
    assert (desk.things[0].closed, desk.logic.stats().idle) == (1, 1)


def test_the_connections_that_idle_longest_go_first_also_after_pings() -> None:
    """A ping is no use; and `resize` closes the same ones as time does."""
    desk = Desk(min_size=0, max_size=3, max_idle_time=300.0, validate_after=30.0)
    notes = [desk.get(holder) for holder in "abc"]
    desk.settle()
    for note in notes:
        assert isinstance(note, Note)
        assert note.entry is not None
        desk.give(note.entry)
        desk.tick(1.0)
    oldest, *others = list(desk.logic.idle)
    desk.tick(desk.due - desk.now)
    desk.settle()
    assert desk.logic.idle == [oldest, *others]
    desk.logic.resize(0, 2, desk.now)
    assert desk.logic.idle == others


def test_a_pool_that_shrinks_closes_what_is_being_pinged() -> None:
    """Where too many are left otherwise, and even after the pool was closed."""
    desk = Desk(min_size=2, max_size=2, validate_after=30.0)
    desk.settle()
    desk.now += 31.0
    notes = [desk.get("a"), desk.get("b")]
    pings = desk.begun
    desk.begun = []
    for note in notes:
        assert isinstance(note, Note)
        assert note.entry is None
    desk.logic.resize(0, 1, desk.now)
    desk.logic.withdraw("b", desk.now)
    desk.end(pings[0])
    assert desk.logic.stats().total == 1
    desk.logic.close()
    desk.end(pings[1])
    desk.settle()
    assert desk.logic.over
    assert [thing.closed for thing in desk.things] == [1, 1]


def test_all_can_be_closed_at_any_moment() -> None:
    """Also while one is pinged, and one not yet begun to be opened."""
    desk = Desk(min_size=1, max_size=2, validate_after=30.0)
    desk.settle()
    desk.tick(31.0)
    desk.prompt = False
    desk.get("a")
    desk.logic.resize(2, 2, desk.now)
    desk.logic.close_all()
    stats = desk.logic.stats()
    assert (stats.total, stats.in_use, stats.idle, stats.opening) == (0, 0, 0, 0)
    desk.settle()
    assert desk.logic.quiet
    assert desk.things[0].closed == 1


def test_a_dropped_pool_leaves_what_somebody_still_holds() -> None:
    """Idle connections are closed; one that was acquired by hand is its holder's."""
    desk = Desk(min_size=2, max_size=2)
    desk.settle()
    entry = desk.get("a")
    assert isinstance(entry, Entry)
    desk.logic.abandoned = True
    desk.settle()
    assert desk.logic.over
    assert sorted(thing.closed for thing in desk.things) == [0, 1]
    assert entry.connection.closed == 0


def test_as_many_wait_as_may() -> None:
    """With `max_waiting`, the next one is turned away at once."""
    desk = Desk(max_size=1, max_waiting=1)
    desk.get("a")
    with pytest.raises(QueueFull, match="1 wait for a connection of 'pool' already"):
        desk.get("b")
    assert desk.logic.stats().rejected == 1


def test_a_factory_that_gives_one_object_twice_or_none_is_an_error() -> None:
    """Such objects are no new connections; those who wait are told."""
    desk = Desk(max_size=2)
    note = desk.get("a")
    assert isinstance(note, Note)
    desk.logic.finish(desk.begun.pop(), None, None, desk.now)
    with pytest.raises(ConnectFailed, match="the factory gave None, which is no new connection"):
        desk.logic.settle("a", note, 1.0)
    desk.now += 10.0
    desk.logic.resize(1, 2, desk.now)
    desk.settle()
    desk.logic.resize(2, 2, desk.now)
    desk.tick()
    desk.logic.finish(desk.begun.pop(), desk.things[0], None, desk.now)
    assert (desk.logic.stats().connect_errors, desk.logic.stats().total) == (2, 1)


def test_a_connection_cannot_be_given_back_twice() -> None:
    """Not even by two threads at once, of which both have seen that it is out."""
    desk = Desk(min_size=1)
    desk.settle()
    entry = desk.get("a")
    assert isinstance(entry, Entry)
    desk.give(entry)
    with pytest.raises(NotFromPool, match="was given back to 'pool' before"):
        desk.logic.give(entry, "a", desk.now, True)


def test_only_uses_count_as_uses() -> None:
    """A connection that is found dead as it is to be handed out was neither used nor reused."""
    desk = Desk(min_size=1, max_size=1)
    desk.settle()
    desk.things[0].alive = False
    note = desk.get("a")
    desk.settle()
    assert isinstance(note, Note)
    assert note.entry is not None
    desk.give(note.entry)
    assert isinstance(desk.get("b"), Entry)
    stats = desk.logic.stats()
    assert (stats.checkouts, stats.reused, stats.invalid, stats.created) == (2, 1, 1, 2)


def test_the_time_of_a_ping_is_kept_whatever_else_happens() -> None:
    """A look at the pool in between does not put it off."""
    desk = Desk(min_size=1, validate_after=30.0)
    desk.settle()
    desk.tick(10.0)
    assert desk.due == pytest.approx(1000.0 + 30.0)


class PoolMachine(RuleBasedStateMachine):
    """Anything that can happen to a pool, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk(min_size=1, max_size=3, max_idle_time=60.0, max_lifetime=200.0)
        self.desk.prompt = False
        self.logic = self.desk.logic
        self.most = 3
        self.holders = 0
        self.held: list[Entry] = []
        self.notes: dict[int, Note] = {}
        self.arrivals: list[int] = []

    def collect(self) -> None:
        """Those who were handed a connection hold it; they were served in order of arrival."""
        served = [holder for holder, note in self.notes.items() if note.entry is not None]
        assert served == self.arrivals[: len(served)]
        for holder in served:
            note = self.notes.pop(holder)
            assert note.woken == 1
            self.arrivals.remove(holder)
            entry = self.logic.settle(holder, note, 0)
            assert entry not in self.held
            self.held.append(entry)

    @rule()
    @precondition(lambda self: not self.logic.closed)
    def acquire(self) -> None:
        self.holders += 1
        waiting = bool(self.logic.waiters)
        got = self.desk.get(self.holders)
        if isinstance(got, Entry):
            assert not waiting, "nobody overtakes"
            assert got.connection.alive
            self.held.append(got)
        else:
            self.notes[self.holders] = got
            self.arrivals.append(self.holders)

    @rule(data=st.data())
    @precondition(lambda self: self.held)
    def release(self, data: st.DataObject) -> None:
        self.desk.give(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))

    @rule(data=st.data())
    @precondition(lambda self: self.notes)
    def give_up(self, data: st.DataObject) -> None:
        holder = data.draw(st.sampled_from(sorted(self.notes)))
        note = self.notes.pop(holder)
        self.arrivals.remove(holder)
        if data.draw(st.booleans()):
            self.logic.withdraw(holder, self.desk.now)
        elif note.error is not None:
            with pytest.raises(PoolClosed):
                self.logic.settle(holder, note, 1.0)
        else:
            with pytest.raises((PoolTimeout, ConnectFailed)):
                self.logic.settle(holder, note, 1.0)

    @rule(number=st.integers(0, 20))
    @precondition(lambda self: self.desk.things)
    def kill(self, number: int) -> None:
        self.desk.things[number % len(self.desk.things)].alive = False

    @rule(number=st.integers(0, 20), fails=st.booleans())
    @precondition(lambda self: self.desk.begun)
    def end_a_job(self, number: int, fails: bool) -> None:
        job = self.desk.begun.pop(number % len(self.desk.begun))
        self.desk.end(job, ConnectionError("refused") if fails else None)

    @rule(sizes=st.tuples(st.integers(0, 3), st.integers(1, 5)).filter(lambda sizes: sizes[0] <= sizes[1]))
    @precondition(lambda self: not self.logic.closed)
    def resize(self, sizes: tuple[int, int]) -> None:
        self.most = max(self.logic.in_use + self.logic.opening, sizes[1])
        self.logic.resize(*sizes, self.desk.now)

    @rule(seconds=st.sampled_from([0.0, 0.1, 5.0, 11.0, 31.0, 61.0, 121.0]))
    def time_passes(self, seconds: float) -> None:
        self.desk.tick(seconds)

    @rule(chance=st.integers(0, 9), all_of_it=st.booleans())
    def close(self, chance: int, all_of_it: bool) -> None:
        if chance == 0:
            self.logic.close_all() if all_of_it else self.logic.close()

    @invariant()
    def it_adds_up(self) -> None:
        """Sizes are kept, nobody waits beside an idle connection, and no connection is lost."""
        self.collect()
        logic, stats = self.logic, self.logic.stats()
        self.most = max(self.logic.max_size, min(self.most, stats.total))
        assert 0 <= stats.total <= self.most
        opening = [job for job in {*logic.jobs, *logic.running} if job.action is Action.OPEN]
        assert stats.total == len(logic.entries) + len(opening)
        assert stats.in_use + stats.idle + stats.opening == stats.total
        assert stats.in_use == sum(id(entry.connection) in logic.entries for entry in self.held)
        assert logic.closed or stats.in_use == len(self.held)
        assert not (stats.waiting and stats.idle)
        assert not (stats.idle and stats.total > logic.max_size)
        assert stats.waiting == sum(note.error is None for note in self.notes.values())
        assert stats.created - stats.closed == len(logic.entries)
        assert stats.reused <= stats.checkouts
        closing = {id(job.target) for job in [*logic.jobs, *self.desk.begun] if job.action is Action.CLOSE}
        for thing in self.desk.things:
            places = [thing.closed == 1, id(thing) in logic.entries, id(thing) in closing]
            assert places.count(True) == 1, "every connection is held, or closed once"

    def teardown(self) -> None:
        """Whatever happened, a pool that is closed comes to its end, with everything closed once."""
        self.logic.close_all()
        self.desk.tick()
        self.desk.settle()
        assert self.logic.over
        assert [thing.closed for thing in self.desk.things] == [1] * len(self.desk.things)


PoolMachine.TestCase.settings = settings(deadline=None, max_examples=100, stateful_step_count=50)
test_any_sequence_keeps_the_invariants = PoolMachine.TestCase
