-- What retention takes of the unacked index, while the inbox still knows which rows those are.
DELETE FROM unacked u
USING inbox i
WHERE i.organization = %(organization)s AND i.mode = %(mode)s AND i.event_id < %(event_id)s
  AND u.organization = i.organization AND u.mode = i.mode AND u.generation = i.generation AND u.position = i.position
