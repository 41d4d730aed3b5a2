-- Endpoints that are there, oldest first, of one owner or of all, from the one after an id on; all that are left without a limit.
SELECT id, organization, mode, url, description, event_types, headers, rate_per_minute, concurrency, schedule, schedule_s, deadline_s,
       legacy_signature, fifo, fifo_block, enabled, disabled_reason, (extract(epoch FROM disabled_at) * 1000)::bigint,
       (extract(epoch FROM failing_since) * 1000)::bigint, (extract(epoch FROM created_at) * 1000)::bigint,
       (extract(epoch FROM updated_at) * 1000)::bigint, blocked_event, (extract(epoch FROM blocked_since) * 1000)::bigint
FROM control.endpoints
WHERE (%(organization)s::text IS NULL OR organization = %(organization)s) AND (%(mode)s::text IS NULL OR mode = %(mode)s)
  AND deleted_at IS NULL AND id > %(after)s
ORDER BY id
LIMIT %(limit)s
