"""What a pool of connections decides: who gets which, and what is opened, pinged and closed. It does nothing itself.

Each method is called with the pool's lock held, and none blocks: connections are opened, pinged and closed by the
faces (`connection_pool.py`, `async_connection_pool.py`), which run the jobs that are decided here and tell how they
ended. Two things always hold: while somebody waits, no connection is idle; and every connection that was opened is
in `entries`, or a job to close it was made.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

from storescope.core.connections.pool_options import PoolOptions
from storescope.core.connections.pool_parts import Action, Entry, Job, Waiter
from storescope.core.connections.pool_state import PoolState
from storescope.core.errors import NotFromPool, PoolClosed, QueueFull

#: Up to this part of its lifetime is taken from a connection at random, so that not all end at once.
LIFETIME_JITTER = 0.1


class PoolLogic(PoolState):
    """The decisions. `wake` is called when there are new jobs, or the next `tick` is due earlier."""

    def __init__(
        self,
        min_size: int,
        max_size: int,
        options: PoolOptions,
        rng: Callable[[], float],
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(min_size, max_size, options, rng)
        self.wake = wake
        self._rng = rng
        self._watchers: list[tuple[Callable[[], bool], Waiter]] = []
        self._returns: deque[tuple[Entry, object, bool]] = deque()  # given back in the middle of something
        self._close_soon = False
        self._hung = 0  # openings that were given up, and whose threads may never come back

    # Check-out and return

    def take(self, holder: object, now: float) -> Entry | None:
        """Hand out the idle connection that was used last, for the caller to see whether it is alive.

        None where there is none, or it is not to be trusted without a ping.
        """
        idle = self.idle
        if idle:
            entry = idle[-1]
            if now < entry.ping_at and now < entry.expires_at:
                entry.taken_at = now
                entry.holder = holder  # before it is out of `idle`, so that no interrupt can lose it
                idle.pop()
                entry.uses += 1
                self.counts.checkouts += 1
                return entry
        return None

    def reject(self, entry: Entry, now: float) -> None:
        """Take back a connection that was found dead as it was handed out."""
        entry.holder = None
        entry.uses -= 1
        self.counts.checkouts -= 1
        self._take_out(entry, now)

    def join(self, holder: object, waiter: Waiter, now: float) -> None:
        """Let somebody wait, behind those who wait already; raises PoolClosed and QueueFull."""
        self.check_open()
        most = self._options.max_waiting
        if most and len(self.waiters) >= most:
            self.counts.rejected += 1
            raise QueueFull(f"{len(self.waiters)} wait for a connection of {self._options.name!r} already")
        waiter.since = now
        self.waiters[holder] = waiter
        self._serve(now)
        if self._backoff.failures:
            self.wake()  # the next attempt may not have been due for anybody

    def settle(self, holder: object, waiter: Waiter, timeout: float) -> Entry:
        """End the waiting: return the connection that was handed over, or raise why there is none."""
        if waiter.entry is not None:
            return waiter.entry
        if waiter.error is not None:
            raise waiter.error
        self.counts.timeouts += 1
        failure = self.failure(timeout)
        self.waiters.pop(holder, None)
        raise failure

    def withdraw(self, holder: object, now: float) -> None:
        """Undo what somebody asked for who was interrupted: it waits no more, and what it was handed goes on."""
        self.waiters.pop(holder, None)
        for entry in list(self.entries.values()):
            if entry.holder is holder:
                self.give(entry, holder, now, not entry.dead())

    def give(self, entry: Entry, holder: object, now: float, healthy: bool) -> None:
        """Take a connection back, for the one who has waited longest or for later; raises NotFromPool."""
        if entry.holder is not holder:
            raise NotFromPool(f"{entry.connection!r} was given back to {self._options.name!r} before")
        self.counts.use_time += now - entry.taken_at
        # Until it is somewhere else the holder has it: who was interrupted in between can give it again.
        if not healthy or now >= entry.expires_at:
            self._take_out(entry, now)
            entry.holder = None
        elif self.waiters:
            entry.ping_at = now + entry.validate_after
            self._hand(entry, now)
        else:
            entry.idle_since = now
            entry.ping_at = now + entry.validate_after
            entry.holder = None
            self.idle.append(entry)

    def give_later(self, entry: Entry, holder: object, healthy: bool) -> None:
        """Have the next `tick` take a connection back; for who interrupted the pool in the middle of something."""
        self._returns.append((entry, holder, healthy))
        self.wake()

    def close_later(self) -> None:
        """Have the next `tick` close the pool, as soon as who interrupted it lets it go on."""
        self._close_soon = True
        self.wake()

    def held_as(self, connection: object, kind: type) -> Entry | None:
        """Find a connection that was handed out to a holder of this kind, or raise NotFromPool.

        None after `close`, which may have closed it already.
        """
        entry = self.entries.get(id(connection))
        if entry is None and self.closed:
            return None
        if entry is None or not isinstance(entry.holder, kind):
            raise NotFromPool(f"{connection!r} is not acquired from {self._options.name!r}")
        return entry

    def _take_out(self, entry: Entry, now: float) -> None:
        if self.entries.get(id(entry.connection)) is not entry:
            return  # the pool was closed meanwhile, and did not wait
        if not self.closed and now < entry.expires_at:
            self.counts.invalid += 1
        self._retire(entry)
        self._serve(now)
        self._notify()

    def _hand(self, entry: Entry, now: float) -> None:
        holder, waiter = next(iter(self.waiters.items()))
        entry.holder = holder
        del self.waiters[holder]
        entry.taken_at = now
        entry.uses += 1
        self.counts.checkouts += 1
        self.counts.waited += 1
        self.counts.wait_time += now - waiter.since
        waiter.entry = entry
        waiter.wake()

    def _retire(self, entry: Entry) -> None:
        del self.entries[id(entry.connection)]
        self.counts.closed += 1
        self.counts.closed_after_use += entry.uses > 0
        self._decide(Job(Action.CLOSE, entry.connection))

    # What is to be done

    def tick(self, now: float) -> tuple[list[Job], float]:
        """Return the jobs that the caller now begins, and when to call again at the latest, infinity for never.

        Each of the jobs ends with `finish`.
        """
        if self.abandoned:
            self.entries = {key: entry for key, entry in self.entries.items() if entry.holder is None}
            self.close()
        while self._returns:
            entry, holder, healthy = self._returns.popleft()
            if entry.holder is holder:
                self.give(entry, holder, now, healthy)
        if self._close_soon:
            self.close_all()
        for job in [job for job in self.running if now >= job.give_up_at]:
            self._give_up(job, now)
        entries, self.idle = self.idle, []
        for entry in entries:
            self._look_after(entry, now)
        self._serve(now)
        jobs, self.jobs = self.jobs, []
        for job in jobs:
            job.begin(now)
        self.running.update(jobs)
        self._notify()
        return jobs, self._next_due(now)

    def finish(self, job: Job, value: Any, error: BaseException | None, now: float) -> Job | None:
        """Take note of how a job ended. Returns the next that the same thread or task is to do, if any."""
        given_up = job not in self.running
        self.running.discard(job)
        following = None
        if job.action is Action.OPEN:
            following = self._late(value) if given_up else self._opened(job, value, error, now)
        elif job.action is Action.PING and not given_up:
            self._pinged(job, error, now)
        if following is not None:
            following.begin(now)
            self.running.add(following)
        self._notify()
        self.wake()
        return following

    def _look_after(self, entry: Entry, now: float) -> None:
        """Decide about a connection that was idle: close it, ping it, or leave it."""
        options = self._options
        dead = entry.dead()
        surplus = self.total > self.min_size and now >= entry.idle_since + options.max_idle_time
        if dead or surplus or now >= entry.expires_at:
            self.counts.invalid += dead
            self._retire(entry)
        elif now >= entry.ping_at and not self._pinging:
            self._ping(entry)  # one at a time: the others can be had meanwhile
        else:
            self.idle.append(entry)

    def _serve(self, now: float) -> None:
        """Have as many connections prepared as those who wait, and `min_size`, need."""
        if self.closed:
            return
        while self.waiters and self.idle:
            entry = self.idle.pop()
            dead = entry.dead()
            if dead or now >= entry.expires_at:
                self.counts.invalid += dead
                self._retire(entry)
            elif now >= entry.ping_at:
                self._ping(entry)
            else:
                self._hand(entry, now)
        wanted = self._wanted()
        if self._backoff.failures:  # the server is away: one attempt at a time
            wanted = min(wanted, 1) if not self._opening and now >= self._backoff.retry_at else 0
        for _ in range(wanted):
            self._opening += 1
            self._decide(Job(Action.OPEN))

    def _wanted(self) -> int:
        room = self.max_size - self.total - self._hung
        return min(room, max(self.min_size - self.total, len(self.waiters) - self.opening))

    def _ping(self, entry: Entry) -> None:
        self._pinging += 1
        self._decide(Job(Action.PING, entry.connection, entry))

    def _decide(self, job: Job) -> None:
        self.jobs.append(job)
        self.wake()

    def _next_due(self, now: float) -> float:
        """Return when to look again. What is in use cannot be due sooner than if it came back at once."""
        options = self._options
        due = [job.give_up_at for job in self.running]
        if self.entries and not self.closed:
            due.append(now + min(options.validate_after, options.max_idle_time))
        for entry in self.idle:
            due.append(entry.expires_at)
            if self.total > self.min_size:
                due.append(entry.idle_since + options.max_idle_time)
            if not self._pinging:
                due.append(entry.ping_at)
        if self._backoff.failures and not self._opening and not self.closed and self._wanted() > 0:
            due.append(self._backoff.retry_at)
        return min(due, default=math.inf)

    # How it ended

    def _opened(self, job: Job, connection: Any, error: BaseException | None, now: float) -> Job | None:
        self._opening -= 1
        if error is not None and self.closed:
            return None
        if error is None and (connection is None or id(connection) in self.entries):
            error = TypeError(f"the factory gave {connection!r}, which is no new connection")
        if error is not None:
            self._failed(error, now)
            return None
        self.counts.created += 1
        self.counts.create_time += now - job.begun
        if self.closed or self.total >= self.max_size:  # closed or shrunk meanwhile
            return self._unwanted(connection)
        lifetime = self._options.max_lifetime * (1 - LIFETIME_JITTER * self._rng())
        entry = Entry(connection, now, lifetime, self._options.validate_after)
        if entry.dead():
            self._failed(ConnectionError(f"{connection!r} was dead as soon as it was open"), now)
            return self._unwanted(connection)
        self._backoff.succeeded()
        self.entries[id(connection)] = entry
        self.idle.append(entry)
        self._serve(now)
        return None

    def _failed(self, error: BaseException, now: float) -> None:
        self.counts.connect_errors += 1
        self._backoff.failed(error, now)

    def _unwanted(self, connection: Any) -> Job:
        self.counts.closed += 1
        return Job(Action.CLOSE, connection)

    def _late(self, connection: Any) -> Job | None:
        self._hung -= 1
        if connection is None:
            return None
        self.counts.created += 1
        return self._unwanted(connection)

    def _pinged(self, job: Job, error: BaseException | None, now: float) -> None:
        entry = job.entry
        if entry is None or self.entries.get(id(entry.connection)) is not entry:
            return  # the pool was closed meanwhile
        self._pinging -= 1
        if error is not None or self.total > self.max_size:
            self.counts.invalid += error is not None
            self._retire(entry)
        else:
            entry.ping_at = now + entry.validate_after
            self._insert(entry)
        self._serve(now)

    def _insert(self, entry: Entry) -> None:
        """Put a connection that was pinged where it was: those that idle longest are the first to be closed."""
        place = sum(other.idle_since <= entry.idle_since for other in self.idle)
        self.idle.insert(place, entry)

    def _give_up(self, job: Job, now: float) -> None:
        self.running.discard(job)
        error = TimeoutError(f"{job.action.value} took longer than {now - job.begun:.1f} s")
        if job.action is Action.OPEN:
            self._opening -= 1
            self._hung += 1
            self._failed(error, now)
        elif job.action is Action.PING:
            self._pinged(job, error, now)

    # The pool as a whole

    def resize(self, min_size: int, max_size: int, now: float) -> None:
        """Change the sizes; what is too many is closed, in use as soon as it comes back."""
        self.check_open()
        self.min_size = min_size
        self.max_size = max_size
        while self.idle and self.total > max_size:
            self._retire(self.idle.pop(0))
        in_use = [entry for entry in self.entries.values() if entry.holder is not None]
        for entry in in_use[: max(self.total - max_size, 0)]:
            entry.expires_at = -math.inf
        self._serve(now)
        self._notify()
        self.wake()

    def close(self) -> None:
        """Refuse whoever comes or waits, and close what is not in use; the rest is closed as it comes back."""
        if self.closed:
            return
        self.closed = True
        self._opening -= sum(job.action is Action.OPEN for job in self.jobs)
        self.jobs = [job for job in self.jobs if job.action is not Action.OPEN]
        for waiter in self.waiters.values():
            waiter.error = PoolClosed(f"{self._options.name!r} was closed")
            waiter.wake()
        self.waiters.clear()
        for entry in self.entries.values():
            entry.expires_at = -math.inf
        while self.idle:
            self._retire(self.idle.pop())
        self._notify()
        self.wake()

    def close_all(self) -> None:
        """Close what is in use as well."""
        self.close()
        for entry in list(self.entries.values()):
            self._retire(entry)
        self._pinging = 0

    def watch(self, condition: Callable[[], bool], waiter: Waiter) -> None:
        """Wake somebody as soon as a condition holds, which may be at once."""
        self._watchers.append((condition, waiter))
        self._notify()

    def unwatch(self, waiter: Waiter) -> None:
        """Forget somebody."""
        self._watchers = [watcher for watcher in self._watchers if watcher[1] is not waiter]

    def _notify(self) -> None:
        for condition, waiter in list(self._watchers):
            if condition():
                self.unwatch(waiter)
                waiter.wake()
