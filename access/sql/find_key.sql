-- One API key by its id, as operators see it.
SELECT k.id, k.organization, k.mode, k.name, k.prefix, k.scopes,
       (extract(epoch FROM k.created_at) * 1000)::bigint, (extract(epoch FROM k.expires_at) * 1000)::bigint,
       (extract(epoch FROM k.last_used_at) * 1000)::bigint, (extract(epoch FROM k.revoked_at) * 1000)::bigint,
       k.rotated_from, (SELECT n.id FROM control.api_keys n WHERE n.rotated_from = k.id)
FROM control.api_keys k
WHERE k.id = %(id)s
