-- All API keys, oldest first.
SELECT id, organization, mode, name, prefix, scopes, revoked_at IS NOT NULL FROM control.api_keys ORDER BY id
