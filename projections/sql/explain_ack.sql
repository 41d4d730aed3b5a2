-- The acknowledgement of an event, with its place in the log.
SELECT partition, position, acked_at_ms FROM acks
WHERE organization = %(organization)s AND mode = %(mode)s AND event_id = %(event_id)s
