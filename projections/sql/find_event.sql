-- One event of an organization and mode, with its ack.
SELECT i.generation, i.partition, i.position, i.ingested_offset, i.type, i.subject, i.occurred_at, i.received_at_ms, i.appended_at_ms,
       encode(i.payload_sha256, 'hex'), length(i.payload), a.acked_at_ms, a.position,
       i.encoding, CASE WHEN i.encoding <> 'plain' THEN i.payload END
FROM inbox i
LEFT JOIN acks a ON a.organization = i.organization AND a.mode = i.mode AND a.event_id = i.event_id
WHERE i.organization = %(organization)s AND i.mode = %(mode)s AND i.event_id = %(event_id)s
