-- An API key that ends at a time.
UPDATE control.api_keys SET expires_at = to_timestamp(%(expires_at_ms)s::bigint / 1000.0) WHERE id = %(id)s
