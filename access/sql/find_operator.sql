-- The operator a token belongs to, by its hash.
SELECT id, name, (extract(epoch FROM created_at) * 1000)::bigint, (extract(epoch FROM last_used_at) * 1000)::bigint,
       (extract(epoch FROM revoked_at) * 1000)::bigint, hash
FROM control.operators WHERE hash = %(hash)s AND revoked_at IS NULL
