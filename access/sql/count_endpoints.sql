-- How many endpoints an organization and mode has.
SELECT count(*) FROM control.endpoints WHERE (organization, mode) = (%(organization)s, %(mode)s) AND deleted_at IS NULL
