-- Data keys that are to be deleted. Whoever holds several takes them in the order of their ids, so that no two wait for each other.
SELECT FROM control.data_keys WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE
