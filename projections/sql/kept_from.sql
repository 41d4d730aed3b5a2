-- The mark of one organization and mode: the lowest event id that stays.
SELECT event_id FROM retention WHERE organization = %(organization)s AND mode = %(mode)s
