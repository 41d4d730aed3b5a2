-- Data keys of an organization by the digest of their subject.
SELECT id, subject_digest, wrapped, master_key_id FROM control.data_keys
WHERE organization = %(organization)s AND subject_digest = ANY(%(digests)s)
