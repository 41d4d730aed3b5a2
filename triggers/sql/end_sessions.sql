-- Ends every other session of ours in this database: none that began before a restore reads what is half there.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND starts_with(application_name, 'triggers-') AND pid <> pg_backend_pid()
