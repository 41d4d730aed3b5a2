-- Accepted events; the first position of an event stays.
INSERT INTO inbox (organization, mode, generation, position, partition, event_id, type, subject, occurred_at, received_at_ms,
                   appended_at_ms, ingested_offset, content_type, payload, payload_sha256, base64, cloudevent)
SELECT o, m, g, p, n, e, t, s, oc, r, a, i, c, b, h, b64, ce
FROM unnest(%(organization)b::text[], %(mode)b::text[], %(generation)b::int4[], %(position)b::int8[], %(partition)b::int4[],
            %(event_id)b::text[], %(type)b::text[], %(subject)b::text[],
            %(occurred_at)b::text[], %(received_at_ms)b::int8[], %(appended_at_ms)b::int8[], %(ingested_offset)b::int8[],
            %(content_type)b::text[], %(payload)b::bytea[], %(payload_sha256)b::bytea[], %(base64)b::bool[], %(cloudevent)b::text[])
     AS x (o, m, g, p, n, e, t, s, oc, r, a, i, c, b, h, b64, ce)
ON CONFLICT DO NOTHING
