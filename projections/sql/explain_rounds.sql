-- Rounds of an event's deliveries that were asked for, with their places in the log.
SELECT partition, journal_offset, endpoint_id, round, cause FROM rounds
WHERE organization = %(organization)s AND mode = %(mode)s AND event_id = %(event_id)s
