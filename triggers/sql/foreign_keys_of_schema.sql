-- Foreign keys that are checked at once: a restore checks them when every table is filled.
SELECT c.relname, k.conname
FROM pg_constraint k
JOIN pg_class c ON c.oid = k.conrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND k.contype = 'f' AND NOT k.condeferrable
ORDER BY c.relname, k.conname
