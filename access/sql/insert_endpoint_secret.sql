-- A signing secret of an endpoint, encrypted.
INSERT INTO control.endpoint_secrets (endpoint, id, ciphertext, master_key_id)
VALUES (%(endpoint)s, %(id)s, %(ciphertext)s, %(master_key_id)s)
