-- Which server it is, whether it takes writes, and whether what it answered for survives a crash.
SELECT current_setting('server_version'), pg_is_in_recovery(), current_setting('fsync'), current_setting('full_page_writes'),
       current_setting('synchronous_commit')
