"""How many calls at once is right, from the latencies and errors of those that ended: AIMD."""

from __future__ import annotations

from statistics import median

from storescope.core.errors import Cancelled, ToolFailed

#: Calls of one key that are judged together; their median is what "the latency now" means.
WINDOW = 10
#: Seconds below which latencies are alike: there the scheduler says more of them than the server.
NOISE = 0.001
#: Windows after which the smallest median of a key is found anew: servers and networks change.
MEMORY = 100
#: Keys whose latencies are told apart; the calls of further ones are judged by their errors alone.
MAX_KEYS = 256


def is_overload(error: BaseException) -> bool:
    """Whether an error may say that the server has too much to do: not what the tool, its arguments or we cause."""
    unrelated = ToolFailed, Cancelled, TypeError, ValueError, LookupError
    return isinstance(error, Exception) and not isinstance(error, unrelated)


class _Latency:
    """The latencies of one key: whether the last window of them was slow beside the best."""

    __slots__ = ("_best", "_next_best", "_window", "_windows")

    def __init__(self) -> None:
        self._window: list[float] = []
        self._windows = 0
        self._best = self._next_best = float("inf")

    def slow(self, seconds: float, tolerance: float) -> bool:
        """Note a call; at the end of a window say whether its median is above `tolerance` times the best."""
        self._window.append(seconds)
        if len(self._window) < WINDOW:
            return False
        now = median(self._window)
        self._window.clear()
        self._windows += 1
        self._best, self._next_best = min(self._best, now), min(self._next_best, now)
        if self._windows % MEMORY == 0:
            self._best, self._next_best = self._next_best, float("inf")
        return now > tolerance * max(self._best, NOISE)


class AimdLimit:
    """A limit that rises by addition and falls by multiplication: AIMD, as in Netflix's concurrency-limits.

    After each success that ends while all slots are in use the limit grows: by one per round (as many calls as the
    limit is) until it first has to fall, by a tenth of that afterwards, because every probe above what a server takes
    costs errors. It falls to `backoff_ratio` of itself when a call is dropped (`is_overload`), or when calls get slow:
    the median of ten of a key is above `tolerance` times the smallest such median (1 ms at least) of the last hundred
    to two hundred windows of that key. Keys (tools) are told apart, because a slow tool is no sign of load.
    Calls that began before the limit last fell tell of the load before it, and do not lower it again.

    Netflix's `AIMDLimit` has a fixed latency threshold and no memory of when it fell; see
    https://github.com/Netflix/concurrency-limits, and Chiu and Jain, "Analysis of the Increase and Decrease
    Algorithms for Congestion Avoidance in Computer Networks" (1989).
    """

    def __init__(
        self, initial: int, min_limit: int, max_limit: int, tolerance: float, backoff_ratio: float
    ) -> None:
        self._exact = float(initial)
        self._least, self._most = min_limit, max_limit
        self._tolerance, self._ratio = tolerance, backoff_ratio
        self._latencies: dict[str, _Latency] = {}
        self.increases = self.decreases = 0

    @property
    def now(self) -> int:
        """The limit, a whole number of calls."""
        return int(self._exact)

    def succeeded(self, key: str, seconds: float, era: int, saturated: bool) -> None:
        """Learn from a call that began when the limit had fallen `era` times."""
        latency = self._latencies.get(key)
        if latency is None and len(self._latencies) < MAX_KEYS:
            latency = self._latencies[key] = _Latency()
        if latency is not None and latency.slow(seconds, self._tolerance):
            self.dropped(era)
        elif saturated:
            before = self.now
            self._exact = min(self._most, self._exact + (0.1 if self.decreases else 1.0) / self._exact)
            self.increases += self.now > before

    def dropped(self, era: int) -> None:
        """Fall, unless the limit has fallen since the call began."""
        if era == self.decreases and self._exact > self._least:
            self._exact = max(self._least, self._exact * self._ratio)
            self.decreases += 1


class FixedLimit:
    """A limit that stays."""

    increases = decreases = 0

    def __init__(self, limit: int) -> None:
        self.now = limit

    def succeeded(self, key: str, seconds: float, era: int, saturated: bool) -> None:
        """Learn nothing."""

    def dropped(self, era: int) -> None:
        """Stay."""
