-- Whether an endpoint is or was an owner's.
SELECT 1 FROM control.endpoints WHERE (id, organization, mode) = (%(id)s, %(organization)s, %(mode)s)
