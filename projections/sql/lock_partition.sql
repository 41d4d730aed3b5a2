-- One writer at a time for rows derived from two topics (unacked), until the transaction ends.
SELECT pg_advisory_xact_lock(%s, %s)
