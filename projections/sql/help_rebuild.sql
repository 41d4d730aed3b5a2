-- No other rebuild begins as long as this session lives.
SELECT pg_advisory_lock_shared(%(lock)s, 1)
