-- One event type with its enforced schema, deleted or not.
SELECT t.type, t.description, t.schema_version, s.schema, t.created_at, t.updated_at, t.deleted_at IS NOT NULL
FROM control.event_types t
LEFT JOIN control.event_type_schemas s
    ON (s.organization, s.mode, s.type, s.version) = (t.organization, t.mode, t.type, t.schema_version)
WHERE (t.organization, t.mode, t.type) = (%(organization)s, %(mode)s, %(type)s)
