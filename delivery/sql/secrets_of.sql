-- Signing secrets that are valid now, newest first: after a rotation old and new both sign.
SELECT endpoint, ciphertext, master_key_id FROM control.endpoint_secrets
WHERE endpoint = ANY(%(ids)s) AND (expires_at IS NULL OR expires_at > now())
ORDER BY endpoint, id DESC
