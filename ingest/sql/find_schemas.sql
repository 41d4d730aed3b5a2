-- The enforced schemas of an organization and mode as of one moment, with the revocation version of that moment.
-- Texts that the caller has already are left out. One row with nulls if there are none.
SELECT r.version, s.type, s.version, s.sha256, CASE WHEN s.sha256 = ANY(%(known)s) THEN NULL ELSE s.schema END
FROM control.revocation r
LEFT JOIN (
    control.event_types t
    JOIN control.event_type_schemas s ON (s.organization, s.mode, s.type, s.version) = (t.organization, t.mode, t.type, t.schema_version)
) ON (t.organization, t.mode) = (%(organization)s, %(mode)s)
