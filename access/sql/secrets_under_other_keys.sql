-- Secrets that a rotation of the master key has left behind, locked in the order of lock_endpoint_secrets.
SELECT endpoint, id, ciphertext, master_key_id FROM control.endpoint_secrets WHERE master_key_id <> %(newest)s ORDER BY endpoint, id FOR UPDATE
