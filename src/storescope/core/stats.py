"""What the optimizers count, as it leaves them: frozen, consistent in itself. Times are in seconds, sizes in bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CacheStats:
    """An `IntelligentCache` since it was made; entries that have expired are no part of its size."""

    size: int
    max_size: int | None
    bytes: int
    max_bytes: int | None
    hits: int
    misses: int
    #: Of the hits, those whose entry had expired and was still within its `stale` time.
    stale_hits: int
    #: Of the hits, those that the second level answered.
    second_level_hits: int
    #: Entries that left, by reason.
    evicted_by_size: int
    evicted_by_ttl: int
    evicted_explicitly: int

    @property
    def hit_rate(self) -> float:
        """Hits among all requests, 0 to 1; 0 where there was none."""
        requests = self.hits + self.misses
        return self.hits / requests if requests else 0.0


@dataclass(frozen=True, slots=True)
class ConnectionPoolStats:
    """An `OptimizedConnectionPool`: what it holds now, and what it did since it was made."""

    min_size: int
    max_size: int
    total: int
    in_use: int
    idle: int
    opening: int
    waiting: int
    #: Connections opened, handed out again, closed, found dead, and attempts to open one that failed.
    created: int
    reused: int
    closed: int
    invalid: int
    connect_errors: int
    #: Callers who gave up, and who were turned away because `max_waiting` waited already.
    timeouts: int
    rejected: int
    #: Check-outs, how many of them had to wait, and sums of what they took.
    checkouts: int
    waited: int
    wait_time: float
    use_time: float
    create_time: float


@dataclass(frozen=True, slots=True)
class ObjectPoolStats:
    """An `ObjectPool`: what it holds now, and what it did since it was made."""

    idle: int
    in_use: int
    max_size: int
    created: int
    reused: int
    #: Objects not kept on their return: the pool was full, or their `reset()` failed.
    discarded: int
    reset_errors: int

    @property
    def reuse_rate(self) -> float:
        """Objects handed out again among all handed out, 0 to 1."""
        handed_out = self.created + self.reused
        return self.reused / handed_out if handed_out else 0.0


@dataclass(frozen=True, slots=True)
class BatchStats:
    """A `BatchOptimizer` since it was made; `queued` and `running` are now."""

    queued: int
    running: int
    runs: int
    succeeded: int
    failed: int
    cancelled: int
    #: Operations that shared the result of an identical read.
    shared: int
    retries: int
    #: Seconds of all runs.
    run_time: float


@dataclass(frozen=True, slots=True)
class ExecutorStats:
    """A pool of threads, processes or coroutines: what it does now, and what it did since it was made."""

    workers: int
    active: int
    queued: int
    max_queued: int | None
    submitted: int
    completed: int
    failed: int
    rejected: int


@dataclass(frozen=True, slots=True)
class LimiterStats:
    """A concurrency limit: what it allows and lets through now, and what it did since it was made."""

    limit: int
    in_flight: int
    waiting: int
    acquired: int
    timeouts: int
    #: How many times an adaptive limit rose and fell.
    increases: int
    decreases: int


@dataclass(frozen=True, slots=True)
class MemoryStats:
    """The memory of this process against the limit that it is under."""

    rss: int
    vms: int
    #: The container's limit where there is one, else the host's memory.
    limit: int
    #: From 0 to 100: what the container uses of its limit, or the process of the host's memory.
    percent: float
    #: How many times the cleanup ran since the optimizer was made.
    cleanups: int


@dataclass(frozen=True, slots=True)
class GCPauses:
    """The pauses of garbage collection that were noticed, of one generation or of all."""

    count: int
    total: float
    longest: float
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class FunctionStats:
    """What a `PerformanceProfiler` knows of one function."""

    name: str
    count: int
    errors: int
    total: float
    minimum: float
    maximum: float
    p50: float
    p95: float
    p99: float

    @property
    def average(self) -> float:
        """Seconds of a call, in the mean."""
        return self.total / self.count if self.count else 0.0


@dataclass(frozen=True, slots=True)
class OptimizedStoreStats:
    """An `OptimizedStore` since it was made: how its calls were answered."""

    calls: int
    hits: int
    stale: int
    misses: int
    #: Calls that joined an identical one in flight.
    coalesced: int
    #: Calls of tools that are not cached.
    bypassed: int
    errors: int
    deadlines: int
