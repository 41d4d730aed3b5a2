-- The audit log, newest first, of one organization or of all, from the one before an id on.
SELECT id, (extract(epoch FROM at) * 1000)::bigint, actor, action, organization, target, detail
FROM control.audit_log
WHERE (%(organization)s::text IS NULL OR organization = %(organization)s) AND id < %(before)s
ORDER BY id DESC LIMIT %(limit)s
