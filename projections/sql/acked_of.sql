-- Which of some events are acknowledged: an ack may come before its event's row.
SELECT a.organization, a.mode, a.event_id
FROM unnest(%(organization)b::text[], %(mode)b::text[], %(event_id)b::text[]) AS x (o, m, e)
JOIN acks a ON a.organization = x.o AND a.mode = x.m AND a.event_id = x.e
