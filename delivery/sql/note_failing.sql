-- The first failure of an endpoint after a success. One that is noted already stays.
UPDATE control.endpoints SET failing_since = to_timestamp(%(since_ms)s::float8 / 1000) WHERE id = %(id)s AND enabled AND failing_since IS NULL
