-- Revoke a key; a second time keeps the first time of revocation.
UPDATE control.api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = %(id)s RETURNING organization
