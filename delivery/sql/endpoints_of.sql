-- Enabled endpoints of organizations and modes.
SELECT
    e.id, e.organization, e.mode, e.url, e.event_types, e.headers, e.rate_per_minute, e.concurrency, e.schedule, e.schedule_s, e.deadline_s,
    e.legacy_signature
FROM control.endpoints e
JOIN unnest(%(organizations)s::text[], %(modes)s::text[]) AS x (o, m) ON e.organization = x.o AND e.mode = x.m
WHERE e.enabled AND e.deleted_at IS NULL
