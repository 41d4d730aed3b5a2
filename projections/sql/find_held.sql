-- Endpoints that would have got an event and were disabled when it came.
SELECT endpoint_id FROM plans
WHERE organization = %(organization)s AND mode = %(mode)s AND event_id = %(event_id)s AND held
ORDER BY endpoint_id
