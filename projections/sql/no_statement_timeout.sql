-- What has to be done in one transaction takes the time it takes.
SET LOCAL statement_timeout = 0
