-- What retention takes of one table.
DELETE FROM {table} WHERE organization = %(organization)s AND mode = %(mode)s AND event_id < %(event_id)s
