-- Whose event an id is, for operators: one look-up by key for each organization, because no index begins with the event's id.
SELECT o.id, e.mode
FROM control.organizations o
CROSS JOIN LATERAL (
    SELECT mode FROM inbox WHERE organization = o.id AND event_id = %(event_id)s
    UNION ALL
    SELECT mode FROM duplicates WHERE organization = o.id AND event_id = %(event_id)s
    OFFSET 0
) e
WHERE %(organization)s::text IS NULL OR o.id = %(organization)s
LIMIT 1
