-- API keys by age, oldest first, of one organization or of all, from the one after an id on; all that are left without a limit.
SELECT k.id, k.organization, k.mode, k.name, k.prefix, k.scopes,
       (extract(epoch FROM k.created_at) * 1000)::bigint, (extract(epoch FROM k.expires_at) * 1000)::bigint,
       (extract(epoch FROM k.last_used_at) * 1000)::bigint, (extract(epoch FROM k.revoked_at) * 1000)::bigint,
       k.rotated_from, (SELECT n.id FROM control.api_keys n WHERE n.rotated_from = k.id)
FROM control.api_keys k
WHERE (%(organization)s::text IS NULL OR k.organization = %(organization)s) AND k.id > %(after)s
ORDER BY k.id LIMIT %(limit)s
