-- Accepted records that retention had passed before they were loaded: the last position of each organization and mode.
INSERT INTO removed (organization, mode, generation, partition, position, event_id)
SELECT DISTINCT ON (o, m, g) o, m, g, n, p, e
FROM unnest(%(organization)b::text[], %(mode)b::text[], %(generation)b::int4[], %(partition)b::int4[], %(position)b::int8[],
            %(event_id)b::text[]) AS x (o, m, g, n, p, e)
ORDER BY o, m, g, p DESC
ON CONFLICT (organization, mode, generation) DO UPDATE SET position = excluded.position, event_id = excluded.event_id
WHERE removed.position < excluded.position
