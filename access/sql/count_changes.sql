-- Changes of one kind an organization made within the last minute; counted no further than asked, from the newest on.
SELECT count(*) FROM (
    SELECT at FROM control.audit_log
    WHERE organization = %(organization)s AND starts_with(action, %(actions)s)
    ORDER BY id DESC
    LIMIT %(count)s
) AS newest
WHERE at > now() - interval '1 minute'
