-- A page of all versions of a type's schema, newest first.
SELECT version, schema, sha256, created_at FROM control.event_type_schemas
WHERE (organization, mode, type) = (%(organization)s, %(mode)s, %(type)s) AND version < %(before)s
ORDER BY version DESC LIMIT %(limit)s
