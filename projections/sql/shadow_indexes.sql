-- Keys and indexes of some tables: table, name, what creates them, and for a key the unique index it rests on. Keys first, so that an index is
-- never made twice.
SELECT t.relname, k.conname, 'constraint', pg_get_constraintdef(k.oid),
       CASE WHEN k.contype IN ('p', 'u') AND NOT k.condeferrable THEN pg_get_indexdef(k.conindid) END,
       k.contype = 'p'
FROM pg_constraint k JOIN pg_class t ON t.oid = k.conrelid
WHERE t.relnamespace = to_regnamespace(%(schema)s) AND t.relname = ANY(%(tables)s) AND k.contype IN ('p', 'u', 'x')
UNION ALL
SELECT t.relname, i.relname, 'index', pg_get_indexdef(i.oid), NULL, false
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
WHERE t.relnamespace = to_regnamespace(%(schema)s) AND t.relname = ANY(%(tables)s)
  AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = x.indexrelid)
ORDER BY 1, 3, 2
