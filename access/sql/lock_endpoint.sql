-- An endpoint held against other changes, the delivery worker's among them, until the transaction ends.
SELECT 1 FROM control.endpoints WHERE id = %(id)s FOR NO KEY UPDATE
