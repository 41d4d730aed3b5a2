-- The event before which a bounded number of older ones stand, of those that retention takes now.
SELECT event_id FROM folds.inbox WHERE organization = %(organization)s AND mode = %(mode)s AND event_id < %(before)s
ORDER BY event_id OFFSET %(events)s LIMIT 1
