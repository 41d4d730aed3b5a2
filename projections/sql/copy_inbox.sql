-- Accepted events of which none is there yet.
COPY inbox (organization, mode, generation, position, partition, event_id, type, subject, occurred_at, received_at_ms, appended_at_ms,
            ingested_offset, content_type, payload, payload_sha256, base64, cloudevent, encoding)
FROM STDIN (FORMAT BINARY)
