-- Positions of a page of events that nobody acknowledged, and of the next one. OFFSET 0: see page.sql.
SELECT u.organization, u.mode, u.generation, u.position
FROM unacked u
WHERE u.organization = %(organization)s AND u.mode = %(mode)s AND (u.generation, u.position) > (%(generation)s, %(offset)s)
  AND (%(type)s::text IS NULL OR %(type)s = (
        SELECT type FROM inbox
        WHERE organization = u.organization AND mode = u.mode AND generation = u.generation AND position = u.position OFFSET 0))
ORDER BY u.generation, u.position
LIMIT %(limit)s + 1
