-- An endpoint has taken a delivery again.
UPDATE control.endpoints SET failing_since = NULL WHERE id = %(id)s AND failing_since IS NOT NULL
