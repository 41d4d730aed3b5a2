-- Acks as their fold wrote them. The API writes a row as soon as its record is in the log, where the fold may not have come yet.
SELECT a.*
FROM acks a
JOIN projection_offsets o ON o.topic = 'inbox.acks' AND o.partition = a.partition AND o.generation = {generation}
WHERE a.position < o.next_offset
