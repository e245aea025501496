"""Results by key: the cache, memoized functions, single-flight, and a second level in Redis."""
