-- A page of the event types of an organization and mode by name, without their schemas.
SELECT type, description, schema_version, NULL, created_at, updated_at, false
FROM control.event_types
WHERE (organization, mode) = (%(organization)s, %(mode)s) AND type COLLATE "C" > %(after)s AND deleted_at IS NULL
ORDER BY type COLLATE "C"
LIMIT %(limit)s
