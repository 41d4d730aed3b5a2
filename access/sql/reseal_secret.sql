-- The same secret under the newest master key.
UPDATE control.endpoint_secrets SET ciphertext = %(ciphertext)s, master_key_id = %(master_key_id)s
WHERE endpoint = %(endpoint)s AND id = %(id)s
