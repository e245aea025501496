"""The optimizers, usable alone: standard library, psutil and msgspec, never OpenTelemetry. Loaded when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storescope.core.batching.batch import AsyncBatchOptimizer, BatchOptimizer
    from storescope.core.caching.cache import IntelligentCache
    from storescope.core.caching.memoize import cache_result
    from storescope.core.caching.redis_cache import RedisCache
    from storescope.core.connections.connection_pool import (
        AsyncOptimizedConnectionPool,
        OptimizedConnectionPool,
    )
    from storescope.core.memory.memory import MemoryOptimizer
    from storescope.core.memory.object_pool import ObjectPool
    from storescope.core.optimized import AsyncOptimizedStore, OptimizedStore
    from storescope.core.payloads.rate_limit import TokenBucket
    from storescope.core.profiling.profile import Profile
    from storescope.core.profiling.profiler import PerformanceProfiler
    from storescope.core.profiling.sampler import Sampler
    from storescope.core.store import AsyncStore, Store, ToolCall, ToolResult
    from storescope.core.workers.cpu import CPUOptimizer

#: Which module has a name.
_HOMES = {
    "AsyncBatchOptimizer": "batching.batch",
    "AsyncOptimizedConnectionPool": "connections.connection_pool",
    "AsyncOptimizedStore": "optimized",
    "AsyncStore": "store",
    "BatchOptimizer": "batching.batch",
    "CPUOptimizer": "workers.cpu",
    "IntelligentCache": "caching.cache",
    "MemoryOptimizer": "memory.memory",
    "ObjectPool": "memory.object_pool",
    "OptimizedConnectionPool": "connections.connection_pool",
    "OptimizedStore": "optimized",
    "PerformanceProfiler": "profiling.profiler",
    "Profile": "profiling.profile",
    "RedisCache": "caching.redis_cache",
    "Sampler": "profiling.sampler",
    "Store": "store",
    "TokenBucket": "payloads.rate_limit",
    "ToolCall": "store",
    "ToolResult": "store",
    "cache_result": "caching.memoize",
}

__all__ = [
    "AsyncBatchOptimizer",
    "AsyncOptimizedConnectionPool",
    "AsyncOptimizedStore",
    "AsyncStore",
    "BatchOptimizer",
    "CPUOptimizer",
    "IntelligentCache",
    "MemoryOptimizer",
    "ObjectPool",
    "OptimizedConnectionPool",
    "OptimizedStore",
    "PerformanceProfiler",
    "Profile",
    "RedisCache",
    "Sampler",
    "Store",
    "TokenBucket",
    "ToolCall",
    "ToolResult",
    "cache_result",
]


def __getattr__(name: str) -> Any:
    """Load a module of the core when something of it is first asked for: few programs need them all."""
    if name not in _HOMES:
        raise AttributeError(f"module 'storescope.core' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"storescope.core.{_HOMES[name]}"), name)
    return value
