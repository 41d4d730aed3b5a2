"""Moving the log to topics with more partitions (ADR 17). What is here is pure; no command does the move yet."""
