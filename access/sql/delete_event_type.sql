-- Take an event type out of the catalogue. Its row stays, for its schema versions.
UPDATE control.event_types SET deleted_at = now(), updated_at = now(), schema_version = NULL
WHERE (organization, mode, type) = (%(organization)s, %(mode)s, %(type)s) AND deleted_at IS NULL
