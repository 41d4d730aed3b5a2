-- An endpoint takes part again, as if it had never failed.
UPDATE control.endpoints
SET enabled = true, disabled_reason = NULL, disabled_at = NULL, failing_since = NULL, updated_at = now()
WHERE id = %(id)s
