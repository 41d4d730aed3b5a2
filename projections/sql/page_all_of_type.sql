-- Positions of a page of events of one type, and of the next one. A statement of its own, so that the type is in the key that is searched.
SELECT i.organization, i.mode, i.generation, i.position
FROM inbox i
WHERE i.organization = %(organization)s AND i.mode = %(mode)s AND i.type = %(type)s
  AND (i.generation, i.position) > (%(generation)s, %(offset)s)
ORDER BY i.generation, i.position
LIMIT %(limit)s + 1
