-- A new operator: only the token's hash is kept.
INSERT INTO control.operators (id, name, hash) VALUES (%(id)s, %(name)s, %(hash)s)
RETURNING (extract(epoch FROM created_at) * 1000)::bigint
