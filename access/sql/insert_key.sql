-- A new API key: only its hash and first characters are kept.
INSERT INTO control.api_keys (id, organization, mode, name, prefix, hash, scopes)
VALUES (%(id)s, %(organization)s, %(mode)s, %(name)s, %(prefix)s, %(hash)s, %(scopes)s)
