-- One rebuild at a time, as long as this session lives.
SELECT pg_try_advisory_lock(%(lock)s, 0)
