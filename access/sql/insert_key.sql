-- A new API key: only its hash and first characters are kept.
INSERT INTO control.api_keys (id, organization, mode, name, prefix, hash, scopes, expires_at, rotated_from)
VALUES (%(id)s, %(organization)s, %(mode)s, %(name)s, %(prefix)s, %(hash)s, %(scopes)s,
        to_timestamp(%(expires_at_ms)s::bigint / 1000.0), %(rotated_from)s)
RETURNING (extract(epoch FROM created_at) * 1000)::bigint
