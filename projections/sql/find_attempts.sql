-- Endpoints and attempts of one event, round by round as they were begun; round null: none was asked for.
SELECT p.endpoint_id, t.attempt, t.outcome, t.started_at_ms, t.duration_ms, t.status, t.error, t.worker, t.next_kind, t.next_at_ms, t.dead_reason,
       nullif(p.round, ''), p.cause
FROM (
    SELECT endpoint_id, '' AS round, NULL AS cause, journal_offset FROM plans
    WHERE organization = %(organization)s AND mode = %(mode)s AND event_id = %(event_id)s AND NOT held
    UNION ALL
    SELECT endpoint_id, round, cause, journal_offset FROM rounds
    WHERE organization = %(organization)s AND mode = %(mode)s AND event_id = %(event_id)s
) p
LEFT JOIN attempts t ON t.organization = %(organization)s AND t.mode = %(mode)s AND t.event_id = %(event_id)s
                    AND t.endpoint_id = p.endpoint_id AND t.round = p.round
ORDER BY p.endpoint_id, p.journal_offset, t.attempt
