-- The last position of an organization's inbox: where `cursor=now` begins.
SELECT generation, position FROM inbox WHERE organization = %(organization)s AND mode = %(mode)s
ORDER BY generation DESC, position DESC LIMIT 1
