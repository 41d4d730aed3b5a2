-- Positions of a page of events, and of the next one.
SELECT i.organization, i.mode, i.generation, i.position
FROM inbox i
WHERE i.organization = %(organization)s AND i.mode = %(mode)s AND (i.generation, i.position) > (%(generation)s, %(offset)s)
ORDER BY i.generation, i.position
LIMIT %(limit)s + 1
