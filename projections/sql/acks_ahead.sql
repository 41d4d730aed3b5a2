-- Acks that the API wrote and the fold has not come to.
SELECT a.partition, a.organization, a.mode, a.event_id, a.position, a.acked_at_ms
FROM {schema}.acks a
LEFT JOIN {schema}.projection_offsets o ON o.topic = 'inbox.acks' AND o.partition = a.partition AND o.generation = {generation}
WHERE a.position >= coalesce(o.next_offset, 0)
ORDER BY a.partition, a.position, a.event_id
