-- What a webhook is made of, of one event.
SELECT type, subject, occurred_at, received_at_ms, content_type, payload, base64, cloudevent, encoding
FROM inbox
WHERE organization = %(organization)s AND mode = %(mode)s AND event_id = %(event_id)s
