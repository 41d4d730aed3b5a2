-- All secrets of an endpoint end after an overlap, unless they end before it.
UPDATE control.endpoint_secrets SET expires_at = least(expires_at, now() + make_interval(secs => %(overlap_s)s))
WHERE endpoint = %(endpoint)s
