-- Data keys of an organization by their ids. Those that are not there were erased.
SELECT id, subject_digest, wrapped, master_key_id FROM control.data_keys
WHERE organization = %(organization)s AND id = ANY(%(ids)s)
