-- What has just been acknowledged is no longer unacked.
DELETE FROM unacked u
USING unnest(%(organization)b::text[], %(mode)b::text[], %(event_id)b::text[]) AS x (o, m, e), inbox i
WHERE i.organization = x.o AND i.mode = x.m AND i.event_id = x.e
  AND u.organization = i.organization AND u.mode = i.mode AND u.generation = i.generation AND u.position = i.position
