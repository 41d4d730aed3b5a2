-- Events that an endpoint may have missed, in order: given up (not because it was erased) and not left out, or held. Each with whether it is to be
-- delivered now: no attempt succeeded in any round, and no other round than `round` is under way (one that was begun and has no last
-- attempt). Looking at a bounded number, and judging afterwards, keeps a page of many that need nothing short.
WITH seen AS (
    (SELECT a.event_id FROM folds.attempts a
     WHERE a.organization = %(organization)s AND a.mode = %(mode)s AND a.endpoint_id = %(endpoint_id)s AND a.next_kind = 'dead'
       AND a.dead_reason IS DISTINCT FROM 'erased'
       AND a.event_id >= %(since)s AND a.event_id < %(until)s AND a.event_id > %(after)s
       AND NOT EXISTS (
           SELECT FROM unnest(%(left_events)s::text[], %(left_rounds)s::text[]) l (event_id, round)
           WHERE l.event_id = a.event_id AND l.round = a.round
       )
     ORDER BY a.event_id LIMIT %(limit)s)
    UNION
    (SELECT p.event_id FROM folds.plans p
     WHERE p.organization = %(organization)s AND p.mode = %(mode)s AND p.endpoint_id = %(endpoint_id)s AND p.held AND %(held)s
       AND p.event_id >= %(since)s AND p.event_id < %(until)s AND p.event_id > %(after)s
     ORDER BY p.event_id LIMIT %(limit)s)
    ORDER BY event_id LIMIT %(limit)s
)
SELECT s.event_id,
       NOT EXISTS (
           SELECT FROM folds.attempts a
           WHERE a.organization = %(organization)s AND a.mode = %(mode)s AND a.event_id = s.event_id AND a.endpoint_id = %(endpoint_id)s
             AND a.outcome = 'delivered'
       ) AND NOT EXISTS (
           SELECT FROM (
               SELECT r.round FROM folds.rounds r
               WHERE r.organization = %(organization)s AND r.mode = %(mode)s AND r.event_id = s.event_id AND r.endpoint_id = %(endpoint_id)s
               UNION ALL
               SELECT '' FROM folds.plans p
               WHERE p.organization = %(organization)s AND p.mode = %(mode)s AND p.event_id = s.event_id AND p.endpoint_id = %(endpoint_id)s
                 AND NOT p.held
           ) begun
           WHERE begun.round <> %(round)s AND NOT EXISTS (
               SELECT FROM folds.attempts a
               WHERE a.organization = %(organization)s AND a.mode = %(mode)s AND a.event_id = s.event_id AND a.endpoint_id = %(endpoint_id)s
                 AND a.round = begun.round AND a.next_kind IS DISTINCT FROM 'retry'
           )
       )
FROM seen s
ORDER BY s.event_id
