-- One audit row, in the transaction of the change it tells of.
INSERT INTO control.audit_log (actor, action, organization, target, detail)
VALUES (%(actor)s, %(action)s, %(organization)s, %(target)s, %(detail)s)
