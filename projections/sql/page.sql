-- A page of the inbox: its rows with ack and delivery status. One of the page_… statements goes into the braces: at most limit + 1 positions.
-- The page ends after `limit` events or with the one that reaches `bytes_max` of payload; `found` above its rows says that there is more.
-- The last three columns are the last position that retention took, in the same snapshot; where the page is empty, they stand in a row of nothing.
-- Organization and mode come out of a materialized step and look-ups are LATERAL … OFFSET 0, so that the planner has to use whole keys: for
-- an organization that statistics do not know yet it was seen to read all of its rows again for each row of the page.
WITH positions AS MATERIALIZED ({positions}),
sized AS (
    SELECT i.*, count(*) OVER () AS found, row_number() OVER places AS place,
           coalesce(sum(octet_length(i.payload)) OVER (places ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS bytes_before
    FROM positions p
    CROSS JOIN LATERAL (
        SELECT * FROM inbox
        WHERE organization = p.organization AND mode = p.mode AND generation = p.generation AND position = p.position
        OFFSET 0
    ) i
    WINDOW places AS (ORDER BY p.generation, p.position)
),
shown AS (
    SELECT i.generation, i.position, i.partition, i.event_id, i.type, i.subject, i.occurred_at, i.received_at_ms, i.content_type, i.payload, i.base64,
           i.cloudevent, i.encoding,
           a.acked_at_ms,
           CASE WHEN a.acked_at_ms IS NOT NULL THEN 'acknowledged'
                WHEN d.planned = 0 THEN 'none'
                WHEN d.delivered = d.planned THEN 'delivered'
                WHEN d.retrying > 0 THEN 'retrying'
                WHEN d.delivered + d.dead = d.planned THEN 'failed'
                ELSE 'pending' END AS status,
           i.found
    FROM sized i
    LEFT JOIN LATERAL (
        SELECT acked_at_ms FROM acks WHERE organization = i.organization AND mode = i.mode AND event_id = i.event_id OFFSET 0
    ) a ON true
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE NOT p.held OR t.delivered IS NOT NULL) AS planned, count(*) FILTER (WHERE t.delivered) AS delivered,
               count(*) FILTER (WHERE NOT t.delivered AND t.dead) AS dead, count(*) FILTER (WHERE NOT t.delivered AND NOT t.dead) AS retrying
        FROM plans p
        LEFT JOIN LATERAL (
            SELECT bool_or(x.outcome = 'delivered') AS delivered, (array_agg(x.next_kind ORDER BY x.journal_offset DESC))[1] IS NOT DISTINCT FROM 'dead' AS dead
            FROM attempts x
            WHERE x.organization = p.organization AND x.mode = p.mode AND x.event_id = p.event_id AND x.endpoint_id = p.endpoint_id
        ) t ON true
        WHERE p.organization = i.organization AND p.mode = i.mode AND p.event_id = i.event_id
    ) d
    WHERE i.place <= %(limit)s AND i.bytes_before < %(bytes_max)s
)
SELECT s.*, r.generation, r.partition, r.position
FROM (VALUES (1)) one
LEFT JOIN (
    SELECT generation, partition, position FROM removed
    WHERE organization = %(organization)s AND mode = %(mode)s
      AND EXISTS (SELECT FROM retention WHERE organization = %(organization)s AND mode = %(mode)s)
    ORDER BY generation DESC
    LIMIT 1
) r ON true
LEFT JOIN shown s ON true
ORDER BY s.generation, s.position
