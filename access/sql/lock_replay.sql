-- Held until the transaction ends; before what is known of its endpoints, as delivery does.
SELECT id FROM control.replays WHERE id = %(id)s FOR UPDATE
