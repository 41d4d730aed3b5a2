-- The server's clock, in Unix seconds.
SELECT extract(epoch FROM clock_timestamp())::double precision
