-- One writer at a time for rows derived from two topics (unacked), until the transaction ends. A shadow schema has locks of its own, so
-- that a rebuild does not hold up the live folds.
SELECT pg_advisory_xact_lock(%s + CASE current_schema() WHEN 'folds' THEN 0 ELSE 1 END, %s)
