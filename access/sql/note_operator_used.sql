-- When an operator was last seen, to the minute: most requests write nothing.
UPDATE control.operators SET last_used_at = now()
WHERE id = %(id)s AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
