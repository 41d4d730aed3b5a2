-- Data keys that a rotation of the master key has left behind.
SELECT organization, id, subject_digest, wrapped, master_key_id FROM control.data_keys WHERE master_key_id <> %(newest)s FOR UPDATE
