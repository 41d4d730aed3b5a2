-- New data keys; where somebody was first, theirs stays.
INSERT INTO control.data_keys (id, organization, subject_digest, wrapped, master_key_id)
SELECT i, %(organization)s, d, w, m
FROM unnest(%(ids)s::text[], %(digests)s::bytea[], %(wrapped)s::bytea[], %(master_key_ids)s::text[]) AS x (i, d, w, m)
ON CONFLICT (organization, subject_digest) DO NOTHING
