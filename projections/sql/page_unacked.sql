-- Positions of a page of events that nobody acknowledged, and of the next one.
SELECT u.organization, u.mode, u.generation, u.position
FROM unacked u
WHERE u.organization = %(organization)s AND u.mode = %(mode)s AND (u.generation, u.position) > (%(generation)s, %(offset)s)
ORDER BY u.generation, u.position
LIMIT %(limit)s + 1
