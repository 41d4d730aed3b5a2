-- All endpoints, oldest first.
SELECT id, organization, mode, url, description, event_types, enabled, disabled_reason FROM control.endpoints ORDER BY id
