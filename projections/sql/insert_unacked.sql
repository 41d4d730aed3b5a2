-- Rows of this batch that nobody acknowledged yet.
INSERT INTO unacked (organization, mode, generation, position, event_id, type)
SELECT i.organization, i.mode, i.generation, i.position, i.event_id, i.type
FROM unnest(%(organization)b::text[], %(mode)b::text[], %(generation)b::int4[], %(position)b::int8[]) AS x (o, m, g, p)
JOIN inbox i ON i.organization = x.o AND i.mode = x.m AND i.generation = x.g AND i.position = x.p
WHERE NOT EXISTS (SELECT FROM acks a WHERE a.organization = i.organization AND a.mode = i.mode AND a.event_id = i.event_id)
ON CONFLICT DO NOTHING
