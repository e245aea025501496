"""The second level on a real redis-server: shared, expiring, compressed; killed and frozen in the middle."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from integration.redis_server import RedisServer

from storescope.core.caching.cache import IntelligentCache, SecondLevel
from storescope.core.caching.redis_cache import RedisCache
from storescope.core.errors import BadPayload, Closed
from storescope.core.payloads import codec

#: In other processes: a cache of the given URL, and what is to be done with it.
PROGRAM = """
import sys
from storescope.core.caching.redis_cache import RedisCache
with RedisCache(sys.argv[1], timeout=5) as cache:
    print(eval(sys.argv[2]))
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of this test's own."""
    running = RedisServer(tmp_path)
    yield running
    running.kill()


@pytest.fixture
def make(server: RedisServer) -> Iterator[Callable[..., RedisCache]]:
    """Make caches on the server; they wait long where a test is not about waiting, for the machine may be busy."""
    made: list[RedisCache] = []

    def cache(**options: Any) -> RedisCache:
        made.append(RedisCache(server.url, **{"timeout": 5.0, **options}))
        return made[-1]

    yield cache
    for each in made:
        each.close()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the core logs, lines of information too."""
    caplog.set_level(logging.INFO, logger="storescope.core")
    return caplog


def elsewhere(server: RedisServer, expression: str) -> str:
    """Evaluate an expression about `cache` in another process, and return what it prints."""
    command = [sys.executable, "-c", PROGRAM, server.url, expression]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return finished.stdout.strip()


def stored(server: RedisServer) -> dict[bytes, bytes]:
    """Return all that the server has."""
    with redis.Redis.from_url(server.url) as client:
        return {key: client.get(key) for key in client.scan_iter()}


def wait_for_back(cache: RedisCache) -> None:
    """Ask until the server answers again."""
    for _ in range(500):
        cache.get("anything")
        if cache.stats().state == "closed":
            return
        time.sleep(0.02)
    raise AssertionError(f"{cache} does not come back")


# Values and their time


def test_values_come_back_with_the_time_that_they_have_left(make: Callable[..., RedisCache]) -> None:
    """What was set is found, with the seconds that the server says are left; what was not is None."""
    cache = make()
    assert cache.get("key") is None
    value = {"text": "ä", "data": b"\x00\xff", "numbers": [1, 1.0, True, None, 2**70], "pair": (1, 2)}
    cache.set(("read_file", {"path": "/a"}), value, 60)
    found = cache.get(("read_file", {"path": "/a"}))
    assert found is not None
    assert found[0] == value
    assert type(found[0]["pair"]) is tuple
    assert 55 < found[1] <= 60  # type: ignore[operator]
    cache.set("nothing", None, 60)
    assert cache.get("nothing") is not None
    assert isinstance(cache, SecondLevel)


def test_values_end_with_their_time(make: Callable[..., RedisCache]) -> None:
    """The server forgets a value when its time is over, however short that is."""
    cache = make()
    cache.set("short", 1, 0.05)
    cache.set("shortest", 1, 1e-9)
    time.sleep(0.06)
    assert cache.get("short") is None
    assert cache.get("shortest") is None


def test_nothing_stays_for_ever(make: Callable[..., RedisCache]) -> None:
    """A value without an end, or with a later one, stays for `max_ttl` seconds."""
    cache = make(max_ttl=100)
    for key, ttl in (("none", None), ("infinite", math.inf), ("long", 1e6)):
        cache.set(key, 1, ttl)
        assert 95 < cache.get(key)[1] <= 100  # type: ignore[index, operator]


def test_delete_says_whether_the_key_was_there(make: Callable[..., RedisCache]) -> None:
    """A deleted key is gone, and deleting it again says that it was."""
    cache = make()
    cache.set("key", 1, 60)
    assert cache.delete("key")
    assert not cache.delete("key")
    assert cache.get("key") is None


def test_large_values_are_compressed(make: Callable[..., RedisCache], server: RedisServer) -> None:
    """A value of 50 KB that repeats itself takes less than 1 KB in the server, and comes back whole."""
    cache = make()
    cache.set("key", "text " * 10_000, 60)
    assert max(map(len, stored(server).values())) < 1_000
    assert cache.get("key")[0] == "text " * 10_000  # type: ignore[index]


def test_too_large_values_are_not_kept(make: Callable[..., RedisCache], server: RedisServer) -> None:
    """A value above 16 MiB is not stored and no error, whoever writes it; one of others that is so large is a miss."""
    cache = make()
    cache.set("key", "x" * (codec.MAX_BYTES + 1), 60)
    raw = make(dump=bytes, load=bytes)
    raw.set("raw", b"x" * (codec.MAX_BYTES + 1), 60)
    assert (cache.stats().too_large, raw.stats().too_large) == (1, 1)
    assert len(stored(server)) == 0
    cache.set("key", 1, 60)
    (key,) = (key for key in stored(server) if not key.endswith(b"generation"))
    with redis.Redis.from_url(server.url) as client:
        client.set(key, b"x" * (codec.MAX_BYTES + 100), keepttl=True)
    assert cache.get("key") is None
    assert cache.stats().unreadable == 1


@pytest.mark.parametrize("blob", [b"", b"x", b"m\x02" + bytes(20), b"\x80\x04K\x01.", codec.encode(1)[:-1]])
def test_what_cannot_be_read_is_a_miss(
    blob: bytes, make: Callable[..., RedisCache], server: RedisServer
) -> None:
    """A value of another release, a corrupt one or a pickle is a miss, and the next `set` replaces it."""
    cache = make()
    cache.set("key", 1, 60)
    (key,) = (key for key in stored(server) if not key.endswith(b"generation"))
    with redis.Redis.from_url(server.url) as client:
        client.set(key, blob, keepttl=True)
    assert cache.get("key") is None
    assert (cache.stats().misses, cache.stats().errors) == (1, 0)
    cache.set("key", 2, 60)
    assert cache.get("key")[0] == 2  # type: ignore[index]


def test_dump_and_load_are_the_callers(make: Callable[..., RedisCache]) -> None:
    """Values go through `dump` and `load`; what `load` calls a bad payload is a miss."""

    def load(blob: bytes) -> str:
        if not blob.startswith(b"v2:"):
            raise BadPayload("of the former version")
        return blob[3:].decode()

    cache = make(dump=lambda value: f"v2:{value}".encode(), load=load)
    cache.set("key", "text", 60)
    assert cache.get("key")[0] == "text"  # type: ignore[index]
    make(dump=lambda value: f"v1:{value}".encode(), load=load).set("key", "text", 60)
    assert cache.get("key") is None


def test_what_cannot_be_written_is_an_error(make: Callable[..., RedisCache]) -> None:
    """A key or value without written form is a TypeError, also where the server is away: no accident hides it."""
    cache = make()
    with pytest.raises(TypeError, match="object has no written form"):
        cache.set("key", object(), 60)
    for use in (cache.get, cache.delete, lambda key: cache.set(key, 1, 60)):
        with pytest.raises(TypeError, match="object has no written form"):
            use(object())


# Sharing


def test_processes_share_values(make: Callable[..., RedisCache], server: RedisServer) -> None:
    """What one process sets another finds, whatever its hash seed, and the other way round."""
    cache = make()
    cache.set(("call", {"a": 1, "b": (2, 3)}), ["here"], 60)
    assert elsewhere(server, "cache.get(('call', {'b': (2, 3), 'a': 1}))[0]") == "['here']"
    elsewhere(server, "cache.set('back', ('there',), 60)")
    assert cache.get("back")[0] == ("there",)  # type: ignore[index]


def test_the_first_level_is_filled_from_the_second(
    make: Callable[..., RedisCache], server: RedisServer
) -> None:
    """A hit of the second level is kept in the first, for the time that it has left, and asked for once."""
    elsewhere(server, "cache.set('key', [1, 2], 60)")
    level = make()
    cache = IntelligentCache(second_level=level)
    assert [cache.get("key") for _ in range(3)] == [[1, 2]] * 3
    assert level.stats().hits == 1
    assert cache.stats().second_level_hits == 1
    assert cache.get("other", "default") == "default"
    cache.set("mine", 1, 60)
    assert elsewhere(server, "cache.get('mine')[0]") == "1"
    assert cache.invalidate("mine")
    assert elsewhere(server, "cache.get('mine')") == "None"


def test_results_of_functions_are_shared(server: RedisServer) -> None:
    """A function that `cache_result` decorates runs once for all processes, for each call however it is spelled."""
    program = """
import sys
from storescope.core import IntelligentCache, RedisCache, cache_result

@cache_result(IntelligentCache(second_level=RedisCache(sys.argv[1], timeout=5)), name="double")
def double(number, options=None):
    print("computed")
    return number * 2, options

print(double(*eval(sys.argv[2])[0], **eval(sys.argv[2])[1]))
"""

    def run(*call: Any) -> list[str]:
        command = [sys.executable, "-c", program, server.url, repr(call)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=True
        ).stdout.splitlines()

    assert run((3,), {"options": {"a": 1, "b": 2}}) == ["computed", "(6, {'a': 1, 'b': 2})"]
    assert run((), {"options": {"b": 2, "a": 1}, "number": 3}) == ["(6, {'a': 1, 'b': 2})"]
    assert run((3.0,), {}) == ["computed", "(6.0, None)"]


def test_prefixes_are_worlds_of_their_own(make: Callable[..., RedisCache]) -> None:
    """Caches of different prefixes neither see nor clear each other's values."""
    one, other = make(prefix="one"), make(prefix="other")
    one.set("key", 1, 60)
    other.set("key", 2, 60)
    one.clear()
    assert one.get("key") is None
    assert other.get("key")[0] == 2  # type: ignore[index]


def test_clear_is_one_step_for_all_processes(make: Callable[..., RedisCache], server: RedisServer) -> None:
    """After `clear` in one process no other finds anything, and no command grew with the number of values."""
    cache, other = make(), make()
    for key in range(50):
        cache.set(key, key, 60)
    assert other.get(1) is not None
    requests = cache.stats().requests
    elsewhere(server, "cache.clear()")
    cache.clear()
    assert cache.stats().requests == requests + 1
    assert all(each.get(key) is None for each in (cache, other) for key in range(50))
    assert len(stored(server)) == 51  # out of reach, until their time is over
    cache.set(1, "new", 60)
    assert other.get(1)[0] == "new"  # type: ignore[index]


def test_a_value_from_before_a_clear_elsewhere_is_not_kept(make: Callable[..., RedisCache]) -> None:
    """A value that was on its way while another process cleared the cache does not outlive that."""
    slow, other = make(), make()
    assert slow.get("key") is None
    other.clear()
    slow.set("key", "old", 60)
    assert other.get("key") is None
    assert slow.get("key") is None
    slow.set("key", "new", 60)
    assert other.get("key")[0] == "new"  # type: ignore[index]


def test_what_was_cleared_stays_so_when_the_server_loses_a_key(
    make: Callable[..., RedisCache], server: RedisServer
) -> None:
    """Where the server evicts the generation itself, everything is a miss: nothing that was cleared comes back."""
    cache = make()
    cache.set("key", 1, 60)
    cache.clear()
    cache.set("other", 1, 60)
    with redis.Redis.from_url(server.url) as client:
        client.delete("storescope:1:generation")
    for each in (cache, make()):
        assert each.get("key") is None
        assert each.get("other") is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_connections_of_its_own(make: Callable[..., RedisCache]) -> None:
    """A child uses the cache of its parent while the parent does, also if its locks were held at the fork."""
    cache = make()
    cache.set("parent", "value", 60)

    def child(results: Any) -> None:
        results.put([cache.get("parent")[0] for _ in range(100)] == ["value"] * 100)  # type: ignore[index]
        cache.set("child", "value", 60)
        results.put(cache.stats().errors)

    context = multiprocessing.get_context("fork")
    results = context.Queue()
    with cache._lock, cache._breaker._lock:
        process = context.Process(target=child, args=(results,))
        process.start()
    assert all(cache.get("parent")[0] == "value" for _ in range(100))  # type: ignore[index]
    assert (results.get(timeout=30), results.get(timeout=30)) == (True, 0)
    process.join(30)
    assert cache.get("child")[0] == "value"  # type: ignore[index]


def test_threads_share_a_cache(make: Callable[..., RedisCache]) -> None:
    """Many threads set and get at once; each finds its own values, and every request is counted."""
    cache = make()
    wrong: list[Any] = []

    def work(name: int) -> None:
        for turn in range(30):
            cache.set((name, turn), [name, turn], 60)
            found = cache.get((name, turn))
            if found is None or found[0] != [name, turn]:
                wrong.append((name, turn, found))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = cache.stats()
    assert wrong == []
    assert (stats.sets, stats.hits, stats.requests, stats.errors) == (240, 240, 480, 0)
    assert stats.request_time > 0
    assert stats.hit_rate == 1
    assert cache.get_stats()["hit_rate"] == 1


# Outages


def test_the_first_level_goes_on_when_the_server_is_killed(
    make: Callable[..., RedisCache], server: RedisServer, log: pytest.LogCaptureFixture
) -> None:
    """With the server dead the cache serves what it has, keeps what is new, warns once, and says when it is back."""
    level = make(retry_after=0.2, max_retry_after=0.2)
    cache = IntelligentCache(second_level=level)
    cache.set("before", 1, 60)
    server.kill()
    for turn in range(50):
        assert cache.get("before") == 1
        assert cache.get(("missing", turn)) is None
        cache.set(("during", turn), turn, 60)
        assert cache.get(("during", turn)) == turn
    stats = level.stats()
    assert stats.errors >= 3
    assert stats.skipped > 50
    assert (stats.outages, stats.state) == (1, "open")
    assert [record.levelno for record in log.records] == [logging.WARNING]

    server.start()
    wait_for_back(level)
    assert [record.levelno for record in log.records] == [logging.WARNING, logging.INFO]
    assert re.search(
        r"127\.0\.0\.1:\d+/0, breaker open\): ConnectionError: .*; going on without it", log.text
    )
    assert re.search(r"breaker closed\): back after \d+\.\d s", log.text)
    cache.set("after", 2, 60)
    assert level.get("after")[0] == 2  # type: ignore[index]


def test_each_outage_has_one_warning(
    make: Callable[..., RedisCache], server: RedisServer, log: pytest.LogCaptureFixture
) -> None:
    """A second outage is warned of again, once, also with many threads in it."""
    level = make(retry_after=0.05, max_retry_after=0.05)
    for _ in range(2):
        server.kill()
        threads = [threading.Thread(target=lambda: [level.get(turn) for turn in range(50)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        server.start()
        wait_for_back(level)
    assert [record.levelno for record in log.records] == [logging.WARNING, logging.INFO] * 2
    assert level.stats().outages == 2


def test_a_frozen_server_costs_three_timeouts(
    make: Callable[..., RedisCache], server: RedisServer, log: pytest.LogCaptureFixture
) -> None:
    """A server that takes connections and answers nothing costs `timeout` for each of three requests, then nothing."""
    level = make(timeout=0.2, retry_after=60, max_retry_after=60)
    level.get("key")
    server.freeze()
    begin = time.monotonic()
    for _ in range(100):
        assert level.get("key") is None
    took = time.monotonic() - begin
    server.thaw()
    stats = level.stats()
    assert (stats.errors, stats.skipped) == (3, 97)
    assert 0.5 < took < 2  # with the three retries of redis-py's own it would be 2.4 and more
    assert len(log.records) == 1
    assert "TimeoutError" in log.text


def test_a_frozen_server_is_used_again_when_it_goes_on(
    make: Callable[..., RedisCache], server: RedisServer
) -> None:
    """After the thaw values are found again: no answer to an earlier question is taken for one to a later."""
    level = make(timeout=0.3, retry_after=0.05, max_retry_after=0.05)
    for key in range(20):
        make().set(key, f"value {key}", 60)
    level.get(0)
    server.freeze()
    for key in range(5):
        level.get(key)
    assert level.stats().state == "open"
    server.thaw()
    wait_for_back(level)
    assert [level.get(key)[0] for key in range(20)] == [f"value {key}" for key in range(20)]  # type: ignore[index]


def test_a_single_failure_is_no_outage(
    make: Callable[..., RedisCache], server: RedisServer, log: pytest.LogCaptureFixture
) -> None:
    """A connection that the server has closed is opened anew without a miss, an error or a word."""
    level = make()
    level.set("key", 1, 60)
    with redis.Redis.from_url(server.url) as client:
        for connection in client.client_list():
            client.client_kill_filter(_id=connection["id"], skipme=True)
    assert level.get("key")[0] == 1  # type: ignore[index]
    assert level.stats().outages == 0
    assert not log.records


@pytest.mark.parametrize("forget", ["delete", "clear", "many"])
def test_what_was_deleted_during_an_outage_does_not_come_back(
    forget: str, make: Callable[..., RedisCache], server: RedisServer
) -> None:
    """A key that was deleted while the server was frozen is forgotten before the server is asked for anything else."""
    level = make(timeout=0.3, retry_after=0.05, max_retry_after=0.05)
    for key in ("gone", "kept"):
        make().set(key, 1, 60)
    level.get("gone")
    server.freeze()
    for _ in range(4):
        level.get("other")
    if forget == "clear":
        level.clear()
    else:
        assert not level.delete("gone")
        for key in range(1_100 if forget == "many" else 0):
            level.delete(key)
    server.thaw()
    wait_for_back(level)
    assert level.get("gone") is None
    assert (level.get("kept") is not None) == (forget == "delete")
    assert elsewhere(server, "cache.get('gone')") == "None"


def test_a_server_that_only_answers_errors_is_away(
    make: Callable[..., RedisCache], server: RedisServer, log: pytest.LogCaptureFixture
) -> None:
    """A server that is full and refuses writes is one to leave alone, and no error to the caller."""
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", 1)
    level = make()
    for key in range(10):
        level.set(key, 1, 60)
    assert (level.stats().errors, level.stats().state) == (3, "open")
    assert "OutOfMemoryError" in log.text or "OOM" in log.text


@pytest.mark.parametrize("host", ["host.invalid", "host..invalid"])
def test_a_host_that_does_not_exist_is_away(host: str, log: pytest.LogCaptureFixture) -> None:
    """A host whose name nobody knows, or nobody can have, is a server that is away."""
    with RedisCache(f"redis://{host}:6379", failures=1) as level:
        assert level.get("key") is None
        level.set("key", 1, 60)
        level.clear()
    assert level.stats().outages == 1
    assert len(log.records) == 1


# The password


def test_the_password_is_shown_nowhere(server: RedisServer, log: pytest.LogCaptureFixture) -> None:
    """Neither repr nor log nor statistics show the password, whether it is right, wrong or the server is dead."""
    wrong = server.url.replace("battery", "horse")
    with (
        RedisCache(server.url, timeout=5, failures=1) as right,
        RedisCache(wrong, timeout=5, failures=1) as other,
    ):
        right.set("key", 1, 60)
        assert other.get("key") is None
        server.kill()
        assert right.get("key") is None
        shown = "".join(map(repr, (right, other, right.stats(), other.stats()))) + log.text
    assert "AuthenticationError" in log.text
    assert "horse" not in shown


def test_a_server_that_quotes_the_password_is_not_believed(log: pytest.LogCaptureFixture) -> None:
    """Where the server's own error has the password in it, the log has stars instead."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                words = connection.recv(1_000).decode().split("\r\n")
                connection.sendall(f"-ERR unknown command, with args {' '.join(words)}\r\n".encode())
                connection.recv(1_000)

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"redis://:s3cret-words@127.0.0.1:{listener.getsockname()[1]}"
        with RedisCache(url, timeout=5, failures=1) as level:
            assert level.get("key") is None
        thread.join(10)
    assert "unknown command" in log.text
    assert "***" in log.text
    assert "s3cret" not in log.text


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hidden@127.0.0.1",
        "redis://:hid/den@127.0.0.1:6379",
        "redis://:hidden@127.0.0.1:99999999",
        "redis://:hidden@127.0.0.1?socket_timeot=1",
        "redis://:hidden@127.0.0.1?socket_timeout=hidden",
        "",
    ],
)
def test_a_bad_url_is_an_error_without_the_password(url: str) -> None:
    """A URL that cannot be is an error that names the argument, and no part of it or of its cause is the password."""
    with pytest.raises(ValueError, match="url_or_client") as error:
        RedisCache(url)
    assert "hid" not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__ or error.value.__context__ is None


# The edge


def test_a_client_of_the_callers_is_used_and_left_open(server: RedisServer) -> None:
    """A `redis.Redis` can be given instead of a URL; closing the cache does not close it."""
    with redis.Redis.from_url(server.url) as client:
        with RedisCache(client) as cache:
            cache.set("key", 1, 60)
            assert cache.get("key")[0] == 1  # type: ignore[index]
        assert client.ping()


def test_clients_that_cannot_be_used_are_refused() -> None:
    """An async client, one that decodes what it reads, and anything else are errors that name the argument."""
    with pytest.raises(TypeError, match=r"url_or_client must be a URL or a redis\.Redis, not a Redis"):
        RedisCache(redis.asyncio.Redis())
    with pytest.raises(TypeError, match=r"url_or_client must be a URL or a redis\.Redis, not a int"):
        RedisCache(1)
    with pytest.raises(ValueError, match="url_or_client must not have decode_responses"):
        RedisCache(redis.Redis(decode_responses=True))
    with pytest.raises(ValueError, match="url_or_client must not have decode_responses"):
        RedisCache("redis://127.0.0.1?decode_responses=True")


@pytest.mark.parametrize(
    "options",
    [
        {"prefix": ""},
        {"prefix": 1},
        {"dump": 1},
        {"load": None},
        {"timeout": 0},
        {"timeout": math.inf},
        {"timeout": math.nan},
        {"timeout": True},
        {"max_ttl": -1},
        {"failures": 0},
        {"retry_after": 0},
        {"max_retry_after": 0.1},
        {"clock": 1},
        {"name": ""},
    ],
    ids=repr,
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    """Each error names the argument."""
    with pytest.raises((TypeError, ValueError), match=next(iter(options))):
        RedisCache("redis://127.0.0.1", **options)


@pytest.mark.parametrize("ttl", [0, -1, math.nan, True, "1"])
def test_bad_times_to_live_are_refused(ttl: Any, make: Callable[..., RedisCache]) -> None:
    """A time to live that is no number above 0 is an error that names it."""
    with pytest.raises((TypeError, ValueError), match="ttl must be"):
        make().set("key", 1, ttl)


def test_a_closed_cache_says_so(make: Callable[..., RedisCache]) -> None:
    """After `close`, which may be called twice, each use raises Closed; the statistics stay."""
    cache = make(name="shared")
    cache.close()
    cache.close()
    for use in (cache.get, cache.delete, lambda key: cache.set(key, 1, 60), lambda key: cache.clear()):
        with pytest.raises(Closed, match=r"RedisCache\('shared', 127\.0\.0\.1:\d+/0, closed\) is closed"):
            use("key")
    assert cache.stats().requests == 0


def test_without_redis_py_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where redis-py is not installed, the error says how to install it; the module itself can be imported."""
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'storescope[redis]'")):
        RedisCache("redis://127.0.0.1")


def test_redis_py_is_loaded_when_a_cache_is_made() -> None:
    """Importing the module does not load redis-py, which takes its time."""
    program = "import sys, storescope.core.caching.redis_cache; print('redis' in sys.modules)"
    command = [sys.executable, "-c", program]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert finished.stdout.strip() == "False"
