-- Nothing is delivered to an endpoint from now on.
UPDATE control.endpoints SET enabled = false, disabled_reason = %(reason)s, disabled_at = now(), updated_at = now() WHERE id = %(id)s
