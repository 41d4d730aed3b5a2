-- Of the first events that an endpoint may have missed (looked at, to be delivered by a recovery, the first of those): see
-- `delivery/sql/some_missed.sql`, which a recovery goes by.
WITH seen AS (
    (SELECT a.event_id FROM attempts a
     WHERE a.organization = %(organization)s AND a.mode = %(mode)s AND a.endpoint_id = %(endpoint_id)s AND a.next_kind = 'dead'
       AND a.dead_reason IS DISTINCT FROM 'erased'
       AND a.event_id >= %(since)s AND a.event_id < %(until)s
       AND NOT EXISTS (
           SELECT FROM unnest(%(left_events)s::text[], %(left_rounds)s::text[]) l (event_id, round)
           WHERE l.event_id = a.event_id AND l.round = a.round
       )
     ORDER BY a.event_id LIMIT %(limit)s)
    UNION
    (SELECT p.event_id FROM plans p
     WHERE p.organization = %(organization)s AND p.mode = %(mode)s AND p.endpoint_id = %(endpoint_id)s AND p.held AND %(held)s
       AND p.event_id >= %(since)s AND p.event_id < %(until)s
     ORDER BY p.event_id LIMIT %(limit)s)
    ORDER BY event_id LIMIT %(limit)s
),
judged AS (
    SELECT s.event_id,
           NOT EXISTS (
               SELECT FROM attempts a
               WHERE a.organization = %(organization)s AND a.mode = %(mode)s AND a.event_id = s.event_id AND a.endpoint_id = %(endpoint_id)s
                 AND a.outcome = 'delivered'
           ) AND NOT EXISTS (
               SELECT FROM (
                   SELECT r.round FROM rounds r
                   WHERE r.organization = %(organization)s AND r.mode = %(mode)s AND r.event_id = s.event_id
                     AND r.endpoint_id = %(endpoint_id)s
                   UNION ALL
                   SELECT '' FROM plans p
                   WHERE p.organization = %(organization)s AND p.mode = %(mode)s AND p.event_id = s.event_id
                     AND p.endpoint_id = %(endpoint_id)s AND NOT p.held
               ) begun
               WHERE NOT EXISTS (
                   SELECT FROM attempts a
                   WHERE a.organization = %(organization)s AND a.mode = %(mode)s AND a.event_id = s.event_id
                     AND a.endpoint_id = %(endpoint_id)s AND a.round = begun.round AND a.next_kind IS DISTINCT FROM 'retry'
               )
           ) AS wanted
    FROM seen s
)
SELECT count(*), count(*) FILTER (WHERE wanted), min(event_id) FILTER (WHERE wanted) FROM judged
