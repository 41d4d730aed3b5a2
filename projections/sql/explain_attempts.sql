-- Every attempt of an event as it was journalled, with its place in the log.
SELECT partition, journal_offset, endpoint_id, attempt, outcome, started_at_ms, duration_ms, worker, status, error, response,
       next_kind, next_at_ms, dead_reason, round, cause
FROM attempts
WHERE organization = %(organization)s AND mode = %(mode)s AND event_id = %(event_id)s
ORDER BY journal_offset
