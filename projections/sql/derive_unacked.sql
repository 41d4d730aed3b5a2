-- The unacked index of an inbox and acks that were loaded as they are.
INSERT INTO unacked (organization, mode, generation, position, event_id, type)
SELECT i.organization, i.mode, i.generation, i.position, i.event_id, i.type
FROM inbox i
WHERE NOT EXISTS (SELECT FROM acks a WHERE a.organization = i.organization AND a.mode = i.mode AND a.event_id = i.event_id)
