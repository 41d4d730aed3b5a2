-- One endpoint that is there, of one owner or of any.
SELECT id, organization, mode, url, description, event_types, headers, rate_per_minute, concurrency, schedule, schedule_s, deadline_s,
       legacy_signature, fifo, fifo_block, enabled, disabled_reason, (extract(epoch FROM disabled_at) * 1000)::bigint,
       (extract(epoch FROM failing_since) * 1000)::bigint, (extract(epoch FROM created_at) * 1000)::bigint,
       (extract(epoch FROM updated_at) * 1000)::bigint, blocked_event, (extract(epoch FROM blocked_since) * 1000)::bigint
FROM control.endpoints
WHERE id = %(id)s AND (%(organization)s::text IS NULL OR organization = %(organization)s) AND (%(mode)s::text IS NULL OR mode = %(mode)s)
  AND deleted_at IS NULL
