-- Changes to event types an organization made within the last minute.
SELECT count(*) FROM control.audit_log
WHERE organization = %(organization)s AND action LIKE 'event\_type.%%' AND at > now() - interval '1 minute'
