-- All operators, oldest first.
SELECT id, name, (extract(epoch FROM created_at) * 1000)::bigint, (extract(epoch FROM last_used_at) * 1000)::bigint,
       (extract(epoch FROM revoked_at) * 1000)::bigint
FROM control.operators ORDER BY id
