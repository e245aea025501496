"""What both faces of `OptimizedStore` share: keys of calls, what is kept of results, and what is counted."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, NamedTuple

from storescope.core import checks
from storescope.core.batching.deadline import Deadline
from storescope.core.batching.limiter import MAX_LIMIT, check_limit
from storescope.core.caching.cache import IntelligentCache
from storescope.core.errors import DeadlineExceeded
from storescope.core.forks import after_fork
from storescope.core.payloads.codec import MAX_BYTES, decode, encode
from storescope.core.payloads.keys import stable_key
from storescope.core.results import results_of
from storescope.core.stats import OptimizedStoreStats
from storescope.core.store import (
    Arguments,
    Owner,
)

MISSING: Final = object()

#: Calls of a batch that are under way at once, where `max_concurrent` does not say.
BATCH_CONCURRENCY: Final = 5

CachedTools = Mapping[str, "float | None"] | Iterable[str]


@dataclass(frozen=True, slots=True)
class Kept:
    """A result that has no plain form: only this process can hand out copies of it."""

    result: Any


class Fetched(NamedTuple):
    """A result of the store's, for whoever asked first, and what others are given copies of."""

    result: Any
    kept: bytes | Kept | None


class Lead:
    """Whether a caller's own fetch was begun, or it joined another's."""

    taken = False


class Answering:
    """What both faces share: which calls are cached under which key, what is kept of a result, and the counts."""

    def __init__(
        self,
        store: Any,
        cached_tools: CachedTools = (),
        *,
        cache: IntelligentCache | None = None,
        stale: float = 0.0,
        timeout: float | None = None,
        max_concurrent: int | Literal["adaptive"] | None = None,
        namespace: str | None = None,
        name: str = "store",
    ) -> None:
        self._ttls = _ttls(cached_tools)
        if not (cache is None or isinstance(cache, IntelligentCache)):
            raise TypeError(f"cache must be an IntelligentCache, not {cache!r}")
        if max_concurrent is not None:
            check_limit("max_concurrent", max_concurrent)
        checks.optional(checks.text, "namespace", namespace)
        self.store = store
        self.cache = IntelligentCache(name=f"{name}.results") if cache is None else cache
        self.stale = checks.number("stale", stale)
        self.timeout: float | None = checks.optional(checks.positive, "timeout", timeout)
        self.max_concurrent = max_concurrent
        self.name = checks.text("name", name)
        self._namespace = namespace
        self._own = uuid.uuid4().hex
        self._results = results_of(store)
        self._owners: dict[str, Owner] = {}
        self._counts = dict.fromkeys(OptimizedStoreStats.__dataclass_fields__, 0)
        self._renew_lock()
        after_fork(self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        counts = self.stats()
        return f"<{type(self).__name__} {self.name!r} of {self.store!r}: {counts.hits} hits in {counts.calls} calls>"

    def stats(self) -> OptimizedStoreStats:
        """Return how its calls were answered since it was made."""
        with self._lock:
            return OptimizedStoreStats(**self._counts)

    def get_stats(self) -> dict[str, Any]:
        """Return the statistics as a dict."""
        return asdict(self.stats())

    def result_error(self, result: Any) -> Exception | None:
        """Return the error that a result is marked with; None where the tool succeeded."""
        return self._results.result_error(result)

    def copy_result(self, result: Any) -> Any:
        """Return a copy that shares nothing that can change."""
        return self._results.copy_result(result)

    def dump_result(self, result: Any) -> Any:
        """Return the plain value from which `load_result` makes an equal result; raise TypeError without one."""
        return self._results.dump_result(result)

    def load_result(self, plain: Any) -> Any:
        """Return the result that a plain value was made of."""
        return self._results.load_result(plain)

    def _begin(self, tool_name: str, arguments: Arguments) -> Deadline:
        """Check a call and start its time."""
        checks.text("tool_name", tool_name)
        if not isinstance(arguments, Mapping):
            raise TypeError(f"arguments must be a mapping, not {arguments!r}")
        return Deadline(self.timeout)

    def _known(self, tool_name: str, owner: Owner) -> Owner:
        """Keep an owner that was found; one without a service may be found later."""
        if owner.service:
            self._owners[tool_name] = owner
        return owner

    def _batch_width(self, calls: int) -> int:
        """Return how many calls of a batch are made at once; where there is a limit, each waits for its turn."""
        if self.max_concurrent is None:
            return max(1, min(calls, BATCH_CONCURRENCY))
        return max(1, min(calls, MAX_LIMIT if self.max_concurrent == "adaptive" else self.max_concurrent))

    def _count(self, *names: str) -> None:
        with self._lock:
            for name in names:
                self._counts[name] += 1

    def _key(self, owner: Owner, tool_name: str, arguments: Arguments) -> bytes | None:
        """Return the key of a call; None where its arguments cannot be told from others.

        Where a store does not tell the services of its tools apart, its results are its own, unless the application
        gives stores one namespace.
        """
        namespace = self._namespace
        if namespace is None:
            namespace = "" if owner.service else self._own
        try:
            return stable_key(namespace, owner.service, owner.scope, owner.agent, tool_name, dict(arguments))
        except (TypeError, ValueError):
            return None

    def _keep(self, result: Any) -> bytes | Kept | None:
        """Return what is kept of a result: bytes, of which each load makes a new one, else a copy, else None."""
        try:
            return encode(self._results.dump_result(result), compress_above=MAX_BYTES)
        except (TypeError, ValueError):
            pass
        try:
            return Kept(self._results.copy_result(result))
        except Exception:  # of whatever the result is made of; the call itself has succeeded
            return None

    def _hand_out(self, kept: Any) -> Any:
        """Return a result of the caller's own; raise ValueError where what was kept elsewhere cannot be read."""
        if type(kept) is Kept:
            return self._results.copy_result(kept.result)
        return self._results.load_result(decode(kept))

    def _answer(self, key: bytes, kept: Any, count: str) -> Any:
        """Return what the cache has for a call, as the caller's own; MISSING where it has nothing that can be read."""
        if kept is MISSING:
            return MISSING
        try:
            result = self._hand_out(kept)
        except (TypeError, ValueError):
            self.cache.invalidate(key)
            return MISSING
        self._count("calls", count)
        return result

    def _store(self, key: bytes, tool_name: str, fetched: Fetched) -> None:
        """Keep a result that is no error for those who ask later: here alone where it has no plain form."""
        if fetched.kept is not None and self._results.result_error(fetched.result) is None:
            put = self.cache.set_local if type(fetched.kept) is Kept else self.cache.set
            put(key, fetched.kept, self._ttls[tool_name], stale=self.stale)


def failure(error: BaseException) -> tuple[str, ...]:
    """Return what a call that raised is counted as."""
    return ("errors", "deadlines") if isinstance(error, DeadlineExceeded) else ("errors",)


def _ttls(cached_tools: CachedTools) -> dict[str, float | None]:
    if isinstance(cached_tools, str):
        raise TypeError(f"cached_tools must name several tools, as [{cached_tools!r}], not be one text")
    if not isinstance(cached_tools, Iterable):
        raise TypeError(f"cached_tools must name tools, not {cached_tools!r}")
    given = cached_tools if isinstance(cached_tools, Mapping) else dict.fromkeys(cached_tools)
    for tool, ttl in given.items():
        if not isinstance(tool, str):
            raise TypeError(f"cached_tools must name tools, not {tool!r}")
        checks.optional(checks.positive, f"cached_tools[{tool!r}]", ttl)
    return dict(given)
