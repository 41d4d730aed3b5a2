-- A FIFO endpoint goes on after the event it waited for.
UPDATE control.endpoints SET blocked_event = NULL, blocked_since = NULL WHERE id = %(id)s AND blocked_event IS NOT NULL
