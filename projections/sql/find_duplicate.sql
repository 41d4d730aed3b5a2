-- What a dropped event lost to.
SELECT original_id, kind, partition, ingested_offset, appended_at_ms, type FROM duplicates
WHERE organization = %(organization)s AND mode = %(mode)s AND event_id = %(event_id)s
