-- Positions of a page of events of one type that nobody acknowledged, and of the next one. A statement of its own, so that the type is in the
-- key that is searched.
SELECT u.organization, u.mode, u.generation, u.position
FROM unacked u
WHERE u.organization = %(organization)s AND u.mode = %(mode)s AND u.type = %(type)s
  AND (u.generation, u.position) > (%(generation)s, %(offset)s)
ORDER BY u.generation, u.position
LIMIT %(limit)s + 1
