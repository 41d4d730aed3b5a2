-- The next version of a type's schema, kept for ever.
INSERT INTO control.event_type_schemas (organization, mode, type, version, schema, sha256)
VALUES (%(organization)s, %(mode)s, %(type)s, %(version)s, %(schema)s, %(sha256)s)
