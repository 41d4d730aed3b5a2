-- Unacked events as the folds left them: those there, and those the API took away ahead of the fold of acks.
SELECT u.organization, u.mode, u.generation, u.position, u.event_id, u.type FROM unacked u
UNION ALL
SELECT i.organization, i.mode, i.generation, i.position, i.event_id, i.type
FROM acks a
JOIN inbox i ON i.organization = a.organization AND i.mode = a.mode AND i.event_id = a.event_id
LEFT JOIN projection_offsets o ON o.topic = 'inbox.acks' AND o.partition = a.partition AND o.generation = {generation}
WHERE a.position >= coalesce(o.next_offset, 0)
