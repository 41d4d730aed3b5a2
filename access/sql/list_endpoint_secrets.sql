-- An endpoint's secrets that sign now, newest first, without themselves.
SELECT id, (extract(epoch FROM created_at) * 1000)::bigint, (extract(epoch FROM expires_at) * 1000)::bigint
FROM control.endpoint_secrets
WHERE endpoint = %(endpoint)s AND (expires_at IS NULL OR expires_at > now())
ORDER BY id DESC
