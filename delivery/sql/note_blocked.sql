-- A FIFO endpoint waits for an event whose schedule is used up.
UPDATE control.endpoints SET blocked_event = %(event_id)s, blocked_since = to_timestamp(%(at_ms)s::float8 / 1000)
WHERE id = %(id)s AND deleted_at IS NULL AND blocked_event IS DISTINCT FROM %(event_id)s
