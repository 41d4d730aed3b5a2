-- Events that lost to an earlier one; the first loss stays.
INSERT INTO duplicates (organization, mode, event_id, type, original_id, kind, partition, ingested_offset, appended_at_ms)
SELECT o, m, e, t, og, k, %(partition)s, i, a
FROM unnest(%(organization)b::text[], %(mode)b::text[], %(event_id)b::text[], %(type)b::text[], %(original_id)b::text[],
            %(kind)b::text[], %(ingested_offset)b::int8[], %(appended_at_ms)b::int8[]) AS x (o, m, e, t, og, k, i, a)
WHERE NOT EXISTS (SELECT FROM retention r WHERE r.organization = x.o AND r.mode = x.m AND x.e < r.event_id)
ON CONFLICT DO NOTHING
