-- Enabled endpoints of organizations and modes.
SELECT e.id, e.organization, e.mode, e.url, e.event_types
FROM control.endpoints e
JOIN unnest(%(organizations)s::text[], %(modes)s::text[]) AS x (o, m) ON e.organization = x.o AND e.mode = x.m
WHERE e.enabled
