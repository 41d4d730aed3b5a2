-- Which of these ids are events of the organization and mode, and which are acknowledged already. OFFSET 0: see page.sql.
SELECT i.event_id, a.position IS NOT NULL
FROM inbox i
LEFT JOIN LATERAL (
    SELECT position FROM acks WHERE organization = i.organization AND mode = i.mode AND event_id = i.event_id OFFSET 0
) a ON true
WHERE i.organization = %(organization)s AND i.mode = %(mode)s AND i.event_id = ANY(%(ids)s)
