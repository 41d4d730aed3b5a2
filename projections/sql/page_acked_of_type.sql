-- Positions of a page of acknowledged events of one type, and of the next one. OFFSET 0: see page.sql.
SELECT i.organization, i.mode, i.generation, i.position
FROM inbox i
CROSS JOIN LATERAL (
    SELECT FROM acks WHERE organization = i.organization AND mode = i.mode AND event_id = i.event_id OFFSET 0
) a
WHERE i.organization = %(organization)s AND i.mode = %(mode)s AND i.type = %(type)s
  AND (i.generation, i.position) > (%(generation)s, %(offset)s)
ORDER BY i.generation, i.position
LIMIT %(limit)s + 1
