-- Data keys that are erased. Done again it does nothing.
DELETE FROM control.data_keys WHERE organization = %(organization)s AND id = ANY(%(ids)s) AND subject_digest <> ''::bytea
