-- Whether there is a key at all, revoked or not.
SELECT 1 FROM control.api_keys WHERE id = %(id)s
