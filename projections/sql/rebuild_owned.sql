-- Whether a session still owns the rebuild.
SELECT EXISTS (
    SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
    WHERE d.datname = current_database() AND l.locktype = 'advisory' AND l.classid = %(lock)s AND l.objid = 0 AND l.pid = %(owner)s AND l.granted
)
