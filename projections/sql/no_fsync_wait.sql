-- Rows and offset share the transaction: lost together, folded again.
SET LOCAL synchronous_commit = off
