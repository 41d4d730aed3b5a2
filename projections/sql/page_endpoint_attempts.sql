-- An endpoint's attempts with any of some outcomes, newest first, before a place in the journal. Each outcome is one walk down the index.
SELECT t.journal_offset, t.event_id, t.attempt, t.outcome, t.started_at_ms, t.duration_ms, t.status, t.error, t.response, t.next_kind,
       t.next_at_ms, t.dead_reason, nullif(t.round, ''), t.cause
FROM unnest(%(outcomes)s::text[]) AS wanted (outcome)
CROSS JOIN LATERAL (
    SELECT * FROM attempts a
    WHERE a.organization = %(organization)s AND a.mode = %(mode)s AND a.endpoint_id = %(endpoint_id)s AND a.outcome = wanted.outcome
      AND a.journal_offset < %(before)s
    ORDER BY a.journal_offset DESC
    LIMIT %(limit)s
) AS t
ORDER BY t.journal_offset DESC
LIMIT %(limit)s
