-- Every live fold and every ack of the API waits, until the transaction ends.
SELECT pg_advisory_xact_lock(%(lock)s, number) FROM generate_series(0, %(partitions)s - 1) AS number
