-- Changes to the event types of one organization come one after the other, so that counts and version numbers hold.
SELECT 1 FROM control.organizations WHERE id = %(organization)s FOR NO KEY UPDATE
