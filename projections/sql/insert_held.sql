-- The disabled endpoints an event would have gone to; its first plan stays.
INSERT INTO held (organization, mode, event_id, endpoint_id, partition, journal_offset)
SELECT o, m, e, ep, %(partition)s, j
FROM unnest(%(organization)b::text[], %(mode)b::text[], %(event_id)b::text[], %(endpoint_id)b::text[], %(journal_offset)b::int8[])
     AS x (o, m, e, ep, j)
WHERE NOT EXISTS (SELECT FROM plans p WHERE p.organization = x.o AND p.mode = x.m AND p.event_id = x.e AND p.journal_offset < x.j)
  AND NOT EXISTS (SELECT FROM held h WHERE h.organization = x.o AND h.mode = x.m AND h.event_id = x.e AND h.journal_offset < x.j)
ON CONFLICT DO NOTHING
