-- The fence: move only from where the batch began.
UPDATE projection_offsets SET next_offset = %(new)s, ingested_high = %(high)s
WHERE topic = %(topic)s AND partition = %(partition)s AND generation = %(generation)s AND next_offset = %(old)s
