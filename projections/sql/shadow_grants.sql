-- What others may do with some tables, and whose the tables are.
SELECT c.relname, pg_get_userbyid(c.relowner), CASE g.grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(g.grantee) END, g.privilege_type
FROM pg_class c LEFT JOIN LATERAL aclexplode(c.relacl) g ON g.grantee <> c.relowner
WHERE c.relnamespace = to_regnamespace(%(schema)s) AND c.relname = ANY(%(tables)s) AND c.relkind = 'r'
ORDER BY 1, 3, 4
