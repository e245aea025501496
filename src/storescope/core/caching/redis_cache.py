"""A second level for `IntelligentCache` in Redis or Valkey, shared by processes and machines (storescope[redis])."""

from __future__ import annotations

import dataclasses
import logging
import secrets
import time
from collections.abc import Callable
from importlib import import_module
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from storescope.core import checks, forks
from storescope.core.caching.breaker import Breaker
from storescope.core.errors import BadPayload, Closed
from storescope.core.payloads.codec import MAX_BYTES, decode, encode
from storescope.core.payloads.keys import stable_key
from storescope.core.stats import SecondLevelStats

if TYPE_CHECKING:
    from typing_extensions import Self

#: Of the names of keys. Another layout gets another number, and finds nothing of this one.
_LAYOUT: Final = 1
_WEEK: Final = 7 * 86_400.0
#: So many deletions are made up for one by one, more by forgetting everything.
_MAX_OWED: Final = 1_000
_SCHEMES: Final = ("redis://", "rediss://", "unix://")
_logger: Final = logging.getLogger("storescope.core")

T = TypeVar("T")
#: A name for what would be the method of that name within the class.
Digests: TypeAlias = set[str]


class RedisCache:
    """Keep values in Redis or Valkey, each for its time.

    Every operation is one round trip, and one more where the cache was cleared meanwhile. It waits for each answer for
    `timeout` seconds at most; looking up a host's name has no timeout. Nothing here raises because the server is away:
    a look-up is a miss then and a write is nothing, and after `failures` of them in a row the server is left alone, for
    `retry_after` seconds at first and for `max_retry_after` at most (see `Breaker`). The logger `storescope.core` says
    so once when that begins, and once when the server is back. What no server can help is raised: TypeError for a key
    or a value that has no written form, and Closed after `close()`.

    Keys are `{prefix}:1:{generation}:{digest}`, the digest being `stable_key` of the caller's key: what that takes can
    be a key. `clear` changes the generation, which is itself a value in Redis; what it leaves behind is out of reach
    and ends with its time. Thread-safe; a forked child opens connections of its own.
    """

    def __init__(
        self,
        url_or_client: Any,
        *,
        prefix: str = "storescope",
        dump: Callable[[Any], bytes] = encode,
        load: Callable[[bytes], Any] = decode,
        timeout: float = 0.05,
        max_ttl: float = _WEEK,
        failures: int = 3,
        retry_after: float = 0.5,
        max_retry_after: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        name: str = "redis",
    ) -> None:
        """Take a URL (`redis://`, `rediss://`, `unix://`) or a `redis.Redis`, whose own timeouts and retries hold.

        `timeout` is for connecting, and for each answer, in seconds. No entry stays longer than `max_ttl` seconds, also
        one that is set for ever. `load` raises BadPayload for what it cannot read: a miss. Connects when first used.

        Raises ImportError where redis-py is not installed, TypeError and ValueError for arguments that cannot be.
        """
        self._redis = _import_redis()
        checks.finite("timeout", timeout)
        self._owned = isinstance(url_or_client, str)
        self._client = (
            _open(self._redis, url_or_client, timeout)
            if self._owned
            else _checked(self._redis, url_or_client)
        )
        self._prefix = f"{checks.text('prefix', prefix)}:{_LAYOUT}:"
        self._dump: Callable[[Any], bytes] = checks.function("dump", dump)
        self._load: Callable[[bytes], Any] = checks.function("load", load)
        self._max_ttl = checks.finite("max_ttl", max_ttl)
        self._clock: Callable[[], float] = checks.function("clock", clock)
        self._name = checks.text("name", name)
        checks.finite("retry_after", retry_after)
        checks.number("max_retry_after", max_retry_after, retry_after)
        self._breaker = Breaker(failures, first=retry_after, longest=max_retry_after, clock=clock)
        #: None until it is asked for.
        self._generation: bytes | None = None
        #: What could not be deleted while the server was away, as digests; None: everything.
        self._owed: Digests | None = set()
        self._closed = False
        self._lock = Lock()
        fields = (field.name for field in dataclasses.fields(SecondLevelStats) if field.name != "state")
        self._counts: dict[str, Any] = dict.fromkeys(fields, 0)
        forks.after_fork(self._in_child)

    def get(self, key: Any) -> tuple[Any, float | None] | None:
        """Return a value and the seconds that it has left by the server's clock, or None: a miss, or no server."""
        digest = stable_key(key).hex()
        found = self._request(lambda: self._look_up(digest))
        if found is None:
            return None
        blob, milliseconds = found
        if not blob or milliseconds in (-2, 0):  # it is not there, or ended within the look-up
            self._count(misses=1)
            return None
        try:
            value = self._load(blob)
        except BadPayload:
            self._count(misses=1, unreadable=1)
            return None
        self._count(hits=1)
        return value, None if milliseconds < 0 else milliseconds / 1000

    def set(self, key: Any, value: Any, ttl: float | None = None) -> None:
        """Keep a value for `ttl` seconds, None or more than `max_ttl`: for `max_ttl`.

        What takes more than 16 MiB is not kept. Neither is a value where another process has cleared the cache since
        this one last looked: it may be older than that.
        """
        digest = stable_key(key).hex()
        seconds = self._max_ttl if ttl is None else min(checks.positive("ttl", ttl), self._max_ttl)
        try:
            blob = self._dump(value)
        except BadPayload:
            self._count(too_large=1)
            return
        if len(blob) > MAX_BYTES:
            self._count(too_large=1)
            return
        milliseconds = max(1, int(seconds * 1000))
        if self._request(lambda: self._exchange(digest, ("SET", blob, "PX", milliseconds))):
            self._count(sets=1)

    def delete(self, key: Any) -> bool:
        """Forget a key; returns whether it was there.

        Where the server is away this returns False, and the key is forgotten before anything else is asked of it.
        """
        digest = stable_key(key).hex()
        replies = self._request(
            lambda: self._exchange(digest, ("DEL",)) or self._exchange(digest, ("DEL",)) or [0]
        )
        if replies is None:
            self._owe({digest})
        return bool(replies and replies[0])

    def clear(self) -> None:
        """Forget every key under this prefix, for all processes, in one step; later where the server is away."""
        if self._request(self._begin_generation) is None:
            self._owe(None)

    def close(self) -> None:
        """Close the connections that were opened for a URL; what follows raises Closed. May be called again."""
        self._closed = True
        if self._owned:
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def stats(self) -> SecondLevelStats:
        """Return what it did so far."""
        with self._lock:
            return SecondLevelStats(state=self._breaker.state, **self._counts)

    def get_stats(self) -> dict[str, Any]:
        """Return `stats()` as a dict, with `hit_rate`."""
        stats = self.stats()
        return {**dataclasses.asdict(stats), "hit_rate": stats.hit_rate}

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"breaker {self._breaker.state}"
        return f"RedisCache({self._name!r}, {self._address()}, {state})"

    # Round trips

    def _look_up(self, digest: str) -> list[Any] | None:
        """Return what is stored and its time to live in milliseconds."""
        commands = ("GETRANGE", 0, MAX_BYTES), ("PTTL",)  # a byte more than any value of ours has
        # Twice, because another process may have cleared the cache meanwhile, and kept this value since.
        return self._exchange(digest, *commands) or self._exchange(digest, *commands) or [b"", -2]

    def _exchange(self, digest: str, *commands: tuple[Any, ...]) -> list[Any] | None:
        """Send commands about one key; returns the answers, or None where they were about a generation that is over."""
        generation = self._generation or self._learn_generation()
        key = f"{self._prefix}{generation.decode()}:{digest}"
        with self._client.pipeline(transaction=True) as pipeline:
            pipeline.get(self._prefix + "generation")
            for command, *arguments in commands:
                pipeline.execute_command(command, key, *arguments)
            replies: list[Any] = pipeline.execute()
        current = replies.pop(0)
        if current == generation:
            return replies
        self._generation = current
        return None

    def _learn_generation(self) -> bytes:
        """Ask which generation it is, and begin one where there is none.

        Its name is random: if it were a number, one that got lost would start over, and find what was cleared.
        """
        with self._client.pipeline(transaction=True) as pipeline:
            pipeline.set(self._prefix + "generation", _new_generation(), nx=True)
            pipeline.get(self._prefix + "generation")
            generation: bytes = pipeline.execute()[1]
        self._generation = generation
        return generation

    def _begin_generation(self) -> bytes:
        generation = _new_generation()
        self._client.set(self._prefix + "generation", generation)
        self._generation = generation
        return generation

    def _owe(self, digests: Digests | None) -> None:
        with self._lock:
            together = None if digests is None or self._owed is None else self._owed | digests
            self._owed = None if together is None or len(together) > _MAX_OWED else together

    def _settle(self) -> None:
        """Delete what could not be deleted, so that it does not come back with the server."""
        with self._lock:
            owed, self._owed = self._owed, set()
        try:
            if owed is None:
                self._begin_generation()
            elif owed:
                generation = (self._generation or self._learn_generation()).decode()
                self._client.delete(*(f"{self._prefix}{generation}:{digest}" for digest in owed))
        except BaseException:
            self._owe(owed)
            raise

    def _request(self, exchange: Callable[[], T]) -> T | None:
        """Do what talks to the server; returns None where that cannot be done now."""
        if self._closed:
            raise Closed(f"{self!r} is closed")
        if not self._breaker.allow():
            self._count(skipped=1)
            return None
        begin = self._clock()
        try:
            if self._owed is None or self._owed:
                self._settle()
            answer = exchange()
        except (self._redis.RedisError, OSError, UnicodeError) as error:  # the last: a host that can be none
            self._count(errors=1, requests=1, request_time=self._clock() - begin)
            if self._breaker.failed():
                self._count(outages=1)
                _logger.warning("%r: %s; going on without it", self, self._described(error))
            return None
        self._count(requests=1, request_time=self._clock() - begin)
        if (outage := self._breaker.succeeded()) is not None:
            _logger.info("%r: back after %.1f s", self, outage)
        return answer

    def _count(self, **increments: float) -> None:
        with self._lock:
            for name, increment in increments.items():
                self._counts[name] += increment

    def _described(self, error: BaseException) -> str:
        """Return an error in words. A server may quote what it was sent, and that may be the password."""
        words = f"{type(error).__name__}: {error}"
        password = self._client.connection_pool.connection_kwargs.get("password")
        return words.replace(str(password), "***") if password else words

    def _address(self) -> str:
        options = self._client.connection_pool.connection_kwargs
        if "path" in options:
            return f"unix://{options['path']}"
        return f"{options.get('host', 'localhost')}:{options.get('port', 6379)}/{options.get('db') or 0}"

    def _in_child(self) -> None:
        self._lock = Lock()


def _import_redis() -> Any:
    try:
        return import_module("redis")
    except ImportError as error:
        raise ImportError("RedisCache needs redis-py: pip install 'storescope[redis]'") from error


def _open(redis: Any, url: str, timeout: float) -> Any:
    """Make a client that asks once and waits `timeout` seconds. Errors never show the URL, for its password."""
    if not url.startswith(_SCHEMES):
        raise ValueError(f"url_or_client must begin with one of {', '.join(_SCHEMES)}")
    try:
        client = redis.Redis.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            protocol=2,  # every server speaks it, and a connection is ready a round trip earlier
            retry=import_module("redis.retry").Retry(import_module("redis.backoff").NoBackoff(), 0),
        )
        pool = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # does not connect; tells options that there are not
    except (ValueError, TypeError):
        raise ValueError(
            "url_or_client is no URL that redis-py understands: host, port or an option is wrong"
        ) from None
    return _checked(redis, client)


def _checked(redis: Any, client: Any) -> Any:
    if not isinstance(client, redis.Redis):
        raise TypeError(f"url_or_client must be a URL or a redis.Redis, not a {type(client).__name__}")
    if client.connection_pool.connection_kwargs.get("decode_responses"):
        raise ValueError("url_or_client must not have decode_responses: values are bytes")
    return client


def _new_generation() -> bytes:
    return secrets.token_hex(8).encode()
