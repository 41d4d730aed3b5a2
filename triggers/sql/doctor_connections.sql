-- How many connections there may be, how many of them are for superusers, and how many there are.
SELECT current_setting('max_connections')::int,
       current_setting('superuser_reserved_connections')::int + coalesce(current_setting('reserved_connections', true)::int, 0),
       (SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend')
