-- Which of these ids are events of the organization and mode, and which are acknowledged already.
SELECT i.event_id, a.event_id IS NOT NULL
FROM inbox i
LEFT JOIN acks a ON a.organization = i.organization AND a.mode = i.mode AND a.event_id = i.event_id
WHERE i.organization = %(organization)s AND i.mode = %(mode)s AND i.event_id = ANY(%(ids)s)
