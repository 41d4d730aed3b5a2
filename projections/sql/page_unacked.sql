-- Positions of a page of events that nobody acknowledged.
SELECT u.generation, u.position
FROM unacked u
WHERE u.organization = %(organization)s AND u.mode = %(mode)s AND (u.generation, u.position) > (%(generation)s, %(offset)s)
  AND (%(type)s::text IS NULL OR EXISTS (
        SELECT FROM inbox t WHERE t.organization = u.organization AND t.mode = u.mode AND t.generation = u.generation
                              AND t.position = u.position AND t.type = %(type)s))
ORDER BY u.generation, u.position
LIMIT %(limit)s
