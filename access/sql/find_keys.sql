-- Candidates for a presented API key: all keys with its 12-character prefix.
SELECT k.id, k.organization, k.mode, k.name, k.hash, k.scopes,
       (extract(epoch FROM k.expires_at) * 1000)::bigint, k.revoked_at IS NOT NULL, o.plan, o.rate_limit_per_minute,
       o.suspended_at IS NOT NULL, o.encryption
FROM control.api_keys k
JOIN control.organizations o ON o.id = k.organization
WHERE k.prefix = %(prefix)s
