-- Of some events what was told before their rows: which are acknowledged (false), and which retention has passed (true).
SELECT x.o, x.m, x.e, r.event_id IS NOT NULL
FROM unnest(%(organization)b::text[], %(mode)b::text[], %(event_id)b::text[]) AS x (o, m, e)
LEFT JOIN acks a ON a.organization = x.o AND a.mode = x.m AND a.event_id = x.e
LEFT JOIN retention r ON r.organization = x.o AND r.mode = x.m AND x.e < r.event_id
WHERE a.event_id IS NOT NULL OR r.event_id IS NOT NULL
