-- Columns of some tables, in order, with the type as a number and as text, and the storage options of their table.
SELECT c.relname, a.attname, a.atttypid::int8, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid),
       array_to_string(c.reloptions, ', ')
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = to_regnamespace(%(schema)s) AND c.relname = ANY(%(tables)s) AND c.relkind = 'r'
ORDER BY c.relname, a.attnum
