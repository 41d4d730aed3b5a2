-- Endpoints by id, disabled ones too.
SELECT
    e.id, e.organization, e.mode, e.url, e.event_types, e.headers, e.rate_per_minute, e.concurrency, e.schedule, e.schedule_s, e.deadline_s,
    e.legacy_signature, e.enabled, (extract(epoch FROM e.failing_since) * 1000)::int8, e.fifo, e.fifo_block
FROM control.endpoints e
WHERE e.deleted_at IS NULL AND e.id = ANY(%(ids)s)
