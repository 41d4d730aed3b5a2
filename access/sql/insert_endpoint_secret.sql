-- The signing secret of a new endpoint, encrypted.
INSERT INTO control.endpoint_secrets (endpoint, id, ciphertext, master_key_id)
VALUES (%(endpoint)s, 1, %(ciphertext)s, %(master_key_id)s)
