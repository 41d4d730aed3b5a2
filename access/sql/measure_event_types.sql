-- How much of its limits an organization and mode has used, this type left out: types there, types ever, bytes of enforced schemas.
SELECT count(*) FILTER (WHERE t.deleted_at IS NULL), count(*), coalesce(sum(length(s.schema)), 0)
FROM control.event_types t
LEFT JOIN control.event_type_schemas s
    ON (s.organization, s.mode, s.type, s.version) = (t.organization, t.mode, t.type, t.schema_version)
WHERE (t.organization, t.mode) = (%(organization)s, %(mode)s) AND t.type <> %(type)s
