-- Endpoints and attempts of one event, in order.
SELECT p.endpoint_id, t.attempt, t.outcome, t.started_at_ms, t.duration_ms, t.status, t.error, t.worker, t.next_kind, t.next_at_ms, t.dead_reason
FROM plans p
LEFT JOIN attempts t ON t.organization = p.organization AND t.mode = p.mode AND t.event_id = p.event_id AND t.endpoint_id = p.endpoint_id
WHERE p.organization = %(organization)s AND p.mode = %(mode)s AND p.event_id = %(event_id)s AND NOT p.held
ORDER BY p.endpoint_id, t.attempt
