-- Secrets that a rotation of the master key has left behind.
SELECT endpoint, id, ciphertext, master_key_id FROM control.endpoint_secrets WHERE master_key_id <> %(newest)s FOR UPDATE
