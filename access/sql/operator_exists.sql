-- Whether there is an operator at all, revoked or not.
SELECT 1 FROM control.operators WHERE id = %(id)s
