-- A page of the inbox: its rows with ack and delivery status. One of the page_… statements goes into the braces.
WITH page AS MATERIALIZED ({positions})
SELECT i.generation, i.position, i.partition, i.event_id, i.type, i.subject, i.occurred_at, i.received_at_ms, i.content_type, i.payload,
       a.acked_at_ms,
       CASE WHEN a.event_id IS NOT NULL THEN 'acknowledged'
            WHEN d.planned = 0 THEN 'none'
            WHEN d.delivered = d.planned THEN 'delivered'
            WHEN d.retrying > 0 THEN 'retrying'
            WHEN d.delivered + d.dead = d.planned THEN 'failed'
            ELSE 'pending' END
FROM page
JOIN inbox i ON i.organization = %(organization)s AND i.mode = %(mode)s AND i.generation = page.generation AND i.position = page.position
LEFT JOIN acks a ON a.organization = i.organization AND a.mode = i.mode AND a.event_id = i.event_id
CROSS JOIN LATERAL (
    SELECT count(*) AS planned, count(*) FILTER (WHERE t.delivered) AS delivered,
           count(*) FILTER (WHERE NOT t.delivered AND t.dead) AS dead, count(*) FILTER (WHERE NOT t.delivered AND NOT t.dead) AS retrying
    FROM plans p
    LEFT JOIN LATERAL (
        SELECT bool_or(x.outcome = 'delivered') AS delivered, bool_or(coalesce(x.next_kind = 'dead', false)) AS dead
        FROM attempts x
        WHERE x.organization = p.organization AND x.mode = p.mode AND x.event_id = p.event_id AND x.endpoint_id = p.endpoint_id
    ) t ON true
    WHERE p.organization = i.organization AND p.mode = i.mode AND p.event_id = i.event_id
) d
ORDER BY i.generation, i.position
