"""What type checkers know of decorated functions; checked by mypy, never run. An unused `ignore` is an error."""

from collections.abc import Callable, Coroutine
from typing import Any

from typing_extensions import assert_type

from storescope.core import IntelligentCache, cache_result
from storescope.core.caching.memo import CacheInfo

cache = IntelligentCache()


@cache_result(cache, ttl=60, key_func=lambda item, currency: (item, currency), stale=5.0, name="price")
def price(item: str, *, currency: str = "EUR") -> float:
    return 1.0


@cache_result(cache)
async def stock(item: str) -> int:
    return 1


class Shop:
    @cache_result(cache)
    def open_at(self, hour: int) -> bool:
        return True

    @staticmethod
    @cache_result(cache)
    def named(name: str) -> str:
        return name


assert_type(price("tea", currency="USD"), float)
assert_type(price.__wrapped__("tea"), float)
assert_type(price.invalidate("tea", currency="USD"), bool)
assert_type(price.cache_info(), CacheInfo)
price.cache_clear()
price(1)  # type: ignore[arg-type]
price("tea", "USD")  # type: ignore[call-arg]
price.invalidate()  # type: ignore[call-arg]

stock_of: Callable[[str], Coroutine[Any, Any, int]] = stock
stock.invalidate("tea")


async def ask() -> None:
    assert_type(await stock("tea"), int)
    await stock(1)  # type: ignore[arg-type]


assert_type(Shop().open_at(9), bool)
assert_type(Shop.open_at(Shop(), 9), bool)
assert_type(Shop.open_at.invalidate(Shop(), 9), bool)
assert_type(Shop.named("corner"), str)
Shop().open_at("9")  # type: ignore[arg-type]
Shop().open_at()  # type: ignore[call-arg]

cache_result({})  # type: ignore[arg-type]
