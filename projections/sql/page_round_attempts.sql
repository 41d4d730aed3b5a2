-- An endpoint's attempts of one round, newest first, before a place in the journal.
SELECT journal_offset, event_id, attempt, outcome, started_at_ms, duration_ms, status, error, response, next_kind, next_at_ms, dead_reason,
       round, cause
FROM attempts
WHERE organization = %(organization)s AND mode = %(mode)s AND endpoint_id = %(endpoint_id)s AND round = %(round)s AND round <> ''
  AND outcome = ANY(%(outcomes)s) AND journal_offset < %(before)s
ORDER BY journal_offset DESC
LIMIT %(limit)s
