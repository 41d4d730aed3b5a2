-- Rounds that were asked for; the first journal record of one stays.
INSERT INTO rounds (organization, mode, event_id, endpoint_id, round, cause, partition, journal_offset)
SELECT o, m, e, ep, ro, ca, %(partition)s, j
FROM unnest(%(organization)b::text[], %(mode)b::text[], %(event_id)b::text[], %(endpoint_id)b::text[], %(round)b::text[],
            %(cause)b::text[], %(journal_offset)b::int8[]) AS x (o, m, e, ep, ro, ca, j)
WHERE NOT EXISTS (SELECT FROM retention r WHERE r.organization = x.o AND r.mode = x.m AND x.e < r.event_id)
ON CONFLICT DO NOTHING
