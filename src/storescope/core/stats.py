"""What the optimizers count, as it leaves them: frozen, consistent in itself. Times are in seconds, sizes in bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CacheStats:
    """An `IntelligentCache` since it was made.

    Entries that have expired are no part of its size; those within their `stale` time still are. Bytes are what the
    weigher says, 0 where there is none.
    """

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
class SecondLevelStats:
    """A `RedisCache` since it was made."""

    #: Of its breaker: `closed` where the server answers, `open` where it is left alone, `half-open` while one asks.
    state: str
    hits: int
    misses: int
    #: Of the misses, values that this release cannot read.
    unreadable: int
    sets: int
    #: Values that were not kept for their size.
    too_large: int
    #: Requests that failed, and requests that were not made because the breaker was open.
    errors: int
    skipped: int
    #: How many times the breaker opened.
    outages: int
    #: Requests that were made, and the sum of what they took.
    requests: int
    request_time: float

    @property
    def hit_rate(self) -> float:
        """Hits among the look-ups that the server answered, 0 to 1; 0 where there was none."""
        answered = self.hits + self.misses
        return self.hits / answered if answered else 0.0


@dataclass(frozen=True, slots=True)
class ConnectionPoolStats:
    """An `OptimizedConnectionPool`: what it holds now, and what it did since it was made."""

    min_size: int
    max_size: int
    total: int
    in_use: int
    idle: int
    #: Being opened, or pinged before they are used again.
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
    #: Objects not kept on their return: the pool was full or closed, or their reset failed.
    discarded: int
    reset_errors: int
    #: Objects that their borrowers dropped without giving them back.
    lost: int

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
class CPUStats:
    """What a `CPUOptimizer` found and made; None where a pool was not asked for."""

    cpu_count: int
    max_concurrent: int | None
    threads: ExecutorStats | None
    processes: ExecutorStats | None


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
class MemoryCleanup:
    """What one cleanup of a `MemoryOptimizer` let go of."""

    #: Unreachable objects that the garbage collector found.
    collected: int
    #: Idle objects that were dropped, by the name of their pool.
    pools: dict[str, int]
    weak_references: int


@dataclass(frozen=True, slots=True)
class MemoryPressure:
    """Why a `MemoryOptimizer` calls back: usage rose above its threshold, and this was done about it."""

    usage: MemoryStats
    cleanup: MemoryCleanup


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
    #: Calls that cProfile saw, wholly or in part.
    profiled: int
    #: Seconds, of all calls; quantiles are within 1 %.
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
class SamplerStats:
    """A `Sampler`: what it looks at now, and what it did since it was made."""

    operations: int
    #: Whether its thread sleeps until an operation begins.
    parked: bool
    #: How many times it looked.
    ticks: int
    #: Operations beyond `max_operations`.
    refused: int
    #: Looks at an operation that did not find it: its thread's stack was too deep.
    lost: int


@dataclass(frozen=True, slots=True)
class ProfilerStats:
    """A `PerformanceProfiler` since it was made or reset."""

    #: Every function that was called, by name.
    functions: Mapping[str, FunctionStats]


@dataclass(frozen=True, slots=True)
class OptimizedStoreStats:
    """An `OptimizedStore` since it was made: how its calls were answered."""

    calls: int
    hits: int
    #: Calls answered with a result whose time was over, while a new one was fetched.
    stale: int
    misses: int
    #: Calls that joined an identical one in flight.
    coalesced: int
    #: Calls of tools that are not cached.
    bypassed: int
    errors: int
    deadlines: int
