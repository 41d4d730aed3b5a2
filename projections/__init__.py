"""Folds of topics into Postgres, and the read side that serves them: inbox, acks, what became of an event."""
