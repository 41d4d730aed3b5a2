-- An endpoint is gone but for its row: whose it was, so that its attempts can still be read. Its headers may hold secrets, so they go.
UPDATE control.endpoints
SET enabled = false, disabled_at = coalesce(disabled_at, now()), deleted_at = now(), updated_at = now(), headers = '{}'
WHERE id = %(id)s
