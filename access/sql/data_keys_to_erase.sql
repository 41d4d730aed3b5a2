-- Ids of an organization's data keys: those of one subject, or all but the index secret, which opens nothing.
SELECT id FROM control.data_keys
WHERE organization = %(organization)s AND subject_digest <> ''::bytea AND (%(digest)s::bytea IS NULL OR subject_digest = %(digest)s)
ORDER BY id
