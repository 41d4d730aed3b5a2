-- Accepted events; the first position of an event stays: rows go in by position, whatever order a join gives them. What gets no row, because
-- its event has one or retention has passed it, is remembered by its position, in each topic generation the last one.
WITH taken AS (
    INSERT INTO inbox (organization, mode, generation, position, partition, event_id, type, subject, occurred_at, received_at_ms,
                       appended_at_ms, ingested_offset, content_type, payload, payload_sha256, base64, cloudevent, encoding)
    SELECT o, m, g, p, n, e, t, s, oc, r, a, i, c, b, h, b64, ce, en
    FROM unnest(%(organization)b::text[], %(mode)b::text[], %(generation)b::int4[], %(position)b::int8[], %(partition)b::int4[],
                %(event_id)b::text[], %(type)b::text[], %(subject)b::text[],
                %(occurred_at)b::text[], %(received_at_ms)b::int8[], %(appended_at_ms)b::int8[], %(ingested_offset)b::int8[],
                %(content_type)b::text[], %(payload)b::bytea[], %(payload_sha256)b::bytea[], %(base64)b::bool[], %(cloudevent)b::text[],
                %(encoding)b::text[])
         AS x (o, m, g, p, n, e, t, s, oc, r, a, i, c, b, h, b64, ce, en)
    WHERE NOT EXISTS (SELECT FROM retention r WHERE r.organization = x.o AND r.mode = x.m AND x.e < r.event_id)
    ORDER BY g, p
    ON CONFLICT DO NOTHING
    RETURNING organization, mode, generation, position
)
INSERT INTO removed (organization, mode, generation, partition, position, event_id)
SELECT DISTINCT ON (o, m, g) o, m, g, n, p, e
FROM unnest(%(organization)b::text[], %(mode)b::text[], %(generation)b::int4[], %(position)b::int8[], %(partition)b::int4[],
            %(event_id)b::text[]) AS x (o, m, g, p, n, e)
WHERE NOT EXISTS (SELECT FROM taken t WHERE t.organization = x.o AND t.mode = x.m AND t.generation = x.g AND t.position = x.p)
ORDER BY o, m, g, p DESC
ON CONFLICT (organization, mode, generation) DO UPDATE SET position = excluded.position, event_id = excluded.event_id
WHERE removed.position < excluded.position
