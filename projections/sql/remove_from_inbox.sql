-- What retention takes of the inbox; the last position that is gone stays known.
WITH gone AS (
    DELETE FROM inbox WHERE organization = %(organization)s AND mode = %(mode)s AND event_id < %(event_id)s
    RETURNING organization, mode, generation, partition, position, event_id
)
INSERT INTO removed (organization, mode, generation, partition, position, event_id)
SELECT DISTINCT ON (generation) organization, mode, generation, partition, position, event_id
FROM gone
ORDER BY generation, position DESC
ON CONFLICT (organization, mode, generation) DO UPDATE SET position = excluded.position, event_id = excluded.event_id
WHERE removed.position < excluded.position
