-- One organization and mode's rows of a table, one by one: where two tables differ. Ordered as Python orders strings.
SELECT {key}, sha256(record_send(t)), event_id, {position}
FROM ({rows}) t
WHERE organization = %(organization)s AND mode = %(mode)s
ORDER BY {order}
