-- Enabled endpoints by id.
SELECT e.id, e.organization, e.mode, e.url, e.event_types FROM control.endpoints e WHERE e.enabled AND e.id = ANY(%(ids)s)
