-- Positions of a page of acknowledged events.
SELECT i.generation, i.position
FROM inbox i
JOIN acks a ON a.organization = i.organization AND a.mode = i.mode AND a.event_id = i.event_id
WHERE i.organization = %(organization)s AND i.mode = %(mode)s AND (i.generation, i.position) > (%(generation)s, %(offset)s)
  AND (%(type)s::text IS NULL OR i.type = %(type)s)
ORDER BY i.generation, i.position
LIMIT %(limit)s
