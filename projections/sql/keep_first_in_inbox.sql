-- As keep_first; the last position that has no row stays known.
WITH gone AS (
    DELETE FROM {table} t
    USING (SELECT ctid AS row, rank() OVER (PARTITION BY {once} ORDER BY {order}) AS place FROM {table}) ranked
    WHERE t.ctid = ranked.row AND ranked.place > 1
    RETURNING t.organization, t.mode, t.generation, t.partition, t.position, t.event_id
)
INSERT INTO removed (organization, mode, generation, partition, position, event_id)
SELECT DISTINCT ON (organization, mode, generation) organization, mode, generation, partition, position, event_id
FROM gone
ORDER BY organization, mode, generation, position DESC
ON CONFLICT (organization, mode, generation) DO UPDATE SET position = excluded.position, event_id = excluded.event_id
WHERE removed.position < excluded.position
