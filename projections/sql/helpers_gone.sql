-- Whether no session helps a rebuild any more. Each of them holds this lock, shared, as long as it lives.
SELECT CASE WHEN pg_try_advisory_lock(%(lock)s, 1) THEN pg_advisory_unlock(%(lock)s, 1) ELSE false END
