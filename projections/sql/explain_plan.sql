-- The endpoints of an event's plan, with its place in the log.
SELECT partition, journal_offset, endpoint_id, held FROM plans
WHERE organization = %(organization)s AND mode = %(mode)s AND event_id = %(event_id)s
ORDER BY endpoint_id
