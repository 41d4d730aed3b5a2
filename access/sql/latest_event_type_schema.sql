-- The newest version of a type's schema, enforced or not.
SELECT version, sha256 FROM control.event_type_schemas
WHERE (organization, mode, type) = (%(organization)s, %(mode)s, %(type)s)
ORDER BY version DESC LIMIT 1
