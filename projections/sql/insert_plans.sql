-- The endpoints an event goes to, or would have gone to; its first plan stays.
INSERT INTO plans (organization, mode, event_id, endpoint_id, partition, journal_offset, held)
SELECT o, m, e, ep, %(partition)s, j, h
FROM unnest(%(organization)b::text[], %(mode)b::text[], %(event_id)b::text[], %(endpoint_id)b::text[], %(journal_offset)b::int8[],
            %(held)b::bool[])
     AS x (o, m, e, ep, j, h)
WHERE NOT EXISTS (SELECT FROM plans p WHERE p.organization = x.o AND p.mode = x.m AND p.event_id = x.e AND p.journal_offset < x.j)
  AND NOT EXISTS (SELECT FROM retention r WHERE r.organization = x.o AND r.mode = x.m AND x.e < r.event_id)
ON CONFLICT DO NOTHING
