"""Moving the log to topics with more partitions (ADR 17)."""
