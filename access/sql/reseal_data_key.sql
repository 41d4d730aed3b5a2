-- The same data key under the newest master key.
UPDATE control.data_keys SET wrapped = %(wrapped)s, master_key_id = %(master_key_id)s WHERE id = %(id)s
