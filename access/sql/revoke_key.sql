-- Revoke a key that is not revoked yet.
UPDATE control.api_keys SET revoked_at = now() WHERE id = %(id)s AND revoked_at IS NULL RETURNING organization
