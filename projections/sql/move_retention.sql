-- An organization and mode's mark; the highest stays, whatever order its records come in.
INSERT INTO retention (organization, mode, partition, position, event_id)
VALUES (%(organization)s, %(mode)s, %(partition)s, %(position)s, %(event_id)s)
ON CONFLICT (organization, mode) DO UPDATE SET position = excluded.position, event_id = excluded.event_id
WHERE retention.event_id < excluded.event_id
