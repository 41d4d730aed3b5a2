-- Processes of ours that are connected to this database, this session's own process left out.
SELECT DISTINCT application_name FROM pg_stat_activity
WHERE datname = current_database() AND application_name = ANY(%s) AND pid <> pg_backend_pid()
ORDER BY 1
