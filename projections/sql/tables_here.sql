-- Tables of the schema that is folded into: a rebuild of one target has its own only.
SELECT tablename FROM pg_tables WHERE schemaname = current_schema()
