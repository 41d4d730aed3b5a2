-- When keys were last used. Rows are locked in order of their ids, so that two processes never wait for each other.
WITH locked AS (
    SELECT k.id, to_timestamp(u.used_at_ms / 1000.0) AS used_at
    FROM unnest(%(ids)s::text[], %(used_at_ms)s::bigint[]) AS u (id, used_at_ms)
    JOIN control.api_keys k ON k.id = u.id
    ORDER BY k.id
    FOR NO KEY UPDATE OF k
)
UPDATE control.api_keys k SET last_used_at = greatest(k.last_used_at, locked.used_at) FROM locked WHERE k.id = locked.id
