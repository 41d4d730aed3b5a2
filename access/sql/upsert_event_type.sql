-- A new event type, or a change of one; one that was deleted is there again.
INSERT INTO control.event_types (organization, mode, type, description)
VALUES (%(organization)s, %(mode)s, %(type)s, %(description)s)
ON CONFLICT (organization, mode, type) DO UPDATE SET description = EXCLUDED.description, updated_at = now(), deleted_at = NULL
