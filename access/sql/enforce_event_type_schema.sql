-- Which version of its schema the payloads of a type are checked against from now on; none with null.
UPDATE control.event_types SET schema_version = %(version)s, updated_at = now()
WHERE (organization, mode, type) = (%(organization)s, %(mode)s, %(type)s)
