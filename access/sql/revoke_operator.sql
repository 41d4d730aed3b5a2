-- Revoke an operator who is not revoked yet.
UPDATE control.operators SET revoked_at = now() WHERE id = %(id)s AND revoked_at IS NULL RETURNING id
