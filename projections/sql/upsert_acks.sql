-- Acknowledgements; the lowest position wins, whoever writes it and in whatever order.
INSERT INTO acks (organization, mode, event_id, partition, position, acked_at_ms)
SELECT o, m, e, %(partition)s, p, t
FROM unnest(%(organization)b::text[], %(mode)b::text[], %(event_id)b::text[], %(position)b::int8[], %(acked_at_ms)b::int8[])
     AS x (o, m, e, p, t)
WHERE NOT EXISTS (SELECT FROM retention r WHERE r.organization = x.o AND r.mode = x.m AND x.e < r.event_id)
ON CONFLICT (organization, mode, event_id) DO UPDATE
SET position = excluded.position, acked_at_ms = excluded.acked_at_ms
WHERE acks.position > excluded.position
