"""The optimizers, usable alone: standard library, psutil and msgspec, never OpenTelemetry. Loaded when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storescope.core.batch import AsyncBatchOptimizer, BatchOptimizer
    from storescope.core.cache import IntelligentCache
    from storescope.core.memoize import cache_result
    from storescope.core.connection_pool import AsyncOptimizedConnectionPool, OptimizedConnectionPool
    from storescope.core.cpu import CPUOptimizer
    from storescope.core.memory import MemoryOptimizer
    from storescope.core.object_pool import ObjectPool
    from storescope.core.optimized import AsyncOptimizedStore, OptimizedStore
    from storescope.core.profiler import PerformanceProfiler
    from storescope.core.redis_cache import RedisCache
    from storescope.core.store import AsyncStore, Store, ToolCall, ToolResult

#: Which module has a name.
_HOMES = {
    "AsyncBatchOptimizer": "batch",
    "AsyncOptimizedConnectionPool": "connection_pool",
    "AsyncOptimizedStore": "optimized",
    "AsyncStore": "store",
    "BatchOptimizer": "batch",
    "CPUOptimizer": "cpu",
    "IntelligentCache": "cache",
    "MemoryOptimizer": "memory",
    "ObjectPool": "object_pool",
    "OptimizedConnectionPool": "connection_pool",
    "OptimizedStore": "optimized",
    "PerformanceProfiler": "profiler",
    "RedisCache": "redis_cache",
    "Store": "store",
    "ToolCall": "store",
    "ToolResult": "store",
    "cache_result": "memoize",
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
    "RedisCache",
    "Store",
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
